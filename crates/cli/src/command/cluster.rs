//! `sabir cluster`.

use sabir_server::client::ClusterInfo;
use serde_json::{Value, json};

use super::{block_on, in_time};
use crate::args::ClusterArgs;
use crate::failure::CliError;
use crate::output::{Show, Table, print};

pub fn run(args: &ClusterArgs) -> Result<(), CliError> {
    block_on(async {
        let mut client = args.client.connect().await?;
        let cluster = in_time(args.client.timeout.0, client.cluster()).await?;
        Ok(print(args.output.output, &Cluster(cluster))?)
    })
}

struct Cluster(ClusterInfo);

impl Show for Cluster {
    fn json(&self) -> Value {
        let node = |(id, address): &(i32, String)| json!({"node": id, "address": address});
        let nodes: Value = self.0.nodes.iter().map(node).collect();
        json!({"cluster": self.0.id, "nodes": nodes})
    }

    fn tables(&self) -> Vec<Table> {
        let rows = self.0.nodes.iter().map(|(id, address)| vec![id.to_string(), address.clone()]).collect();
        let title = self.0.id.as_ref().map(|id| format!("cluster {id}"));
        vec![Table { title, head: vec!["NODE", "ADDRESS"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.nodes.iter().map(|(id, _)| id.to_string()).collect()
    }
}
