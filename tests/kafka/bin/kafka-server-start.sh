#!/bin/sh
# In the place of the script of this name in Kafka's own image.
# shellcheck disable=SC2086 # a list of words
exec java $KAFKA_HEAP_OPTS -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp '/opt/kafka/libs/*' kafka.Kafka "$@"
