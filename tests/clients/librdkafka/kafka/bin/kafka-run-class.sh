#!/usr/bin/env bash
# Stands in for the scripts of Kafka's distribution, which a few of librdkafka's cases call: this one by the class, the links beside it
# by their own names.
set -euo pipefail
home=${KAFKA_JARS:?the folder that bench/peers/kafka.sh installs}
case ${0##*/} in
  kafka-topics.sh) set -- org.apache.kafka.tools.TopicCommand "$@" ;;
  kafka-acls.sh) set -- org.apache.kafka.tools.AclCommand "$@" ;;
esac
exec java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "-Dlog4j2.configurationFile=$home/tools-log4j2.properties" -cp "$home/lib/*" "$@"
