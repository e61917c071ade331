#!/usr/bin/env bash
# Brings Kafka's own client in the versions that are tested, each with what it needs, and prints a line for each: version, folder of jars.
. "$(dirname "$(readlink -f "$0")")/../../../bench/peers/lib.sh"

for version in 2.1.1 2.8.2 3.9.1 4.4.0; do
  home=$PEERS_HOME/kafka-clients-$version
  maven_install "$home" "org.apache.kafka:kafka-clients:$version" >&2
  echo "$version $home/lib"
done
