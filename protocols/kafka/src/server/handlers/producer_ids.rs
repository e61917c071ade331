//! InitProducerId.

use std::sync::Arc;

use super::transactions::{NO_COORDINATOR, WHY_NOT};
use super::{Call, Client, Reply, Unanswered, commit_by, decode, within};
use crate::server::map::producer_id_error_code;
use crate::server::requests::Request;
use crate::wire::ErrorCode;
use crate::wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

/// Gives an idempotent producer its id. One that still has an id wants to go on under a later epoch; a fresh id serves it as
/// well, and there is none whose epochs are used up.
pub(super) async fn init_producer_id(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: InitProducerIdRequest = decode(&request)?;
    let id = match body.transactional_id.as_deref() {
        // An id has an epoch, and an epoch an id.
        None if (body.producer_id == -1) != (body.producer_epoch == -1) => Err(ErrorCode::InvalidRequest),
        None => {
            let allocating = client.kafka.broker.allocate_producer_id(&client.caller);
            within(commit_by(), allocating).await.map_err(producer_id_error_code)
        }
        Some("") => Err(ErrorCode::InvalidRequest),
        Some(_) => {
            client.refused(call.api, WHY_NOT);
            Err(NO_COORDINATOR)
        }
    };
    let response = match id {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        },
    };
    Ok(call.reply(&response, id.err().unwrap_or(ErrorCode::None)))
}
