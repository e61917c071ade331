import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;

/**
 * One member of a consumer group, in a process of its own so that it can be killed. It reads, commits what each poll brought, and
 * says on stdout what happens, a line each:
 *
 * <pre>
 * assigned 0,1        partitions that it gets beside those that it has
 * revoked 0,1         partitions that it gives back
 * lost 0,1            partitions that were taken from it
 * owns 0,1            what it has now
 * read 0 17 20 17,18,19     partition, first offset, offset after the last, the values
 * committed 0 20      partition, offset
 * fenced              another member came with its instance id
 * </pre>
 *
 * Arguments: NAME=VALUE properties of the consumer, and topic=NAME. It ends on SIGTERM by leaving the group.
 */
public class Member {
    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        properties.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        for (String arg : args) properties.put(arg.substring(0, arg.indexOf('=')), arg.substring(arg.indexOf('=') + 1));
        String topic = (String) properties.remove("topic");

        KafkaConsumer<byte[], String> consumer = new KafkaConsumer<>(properties);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join(20_000);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        try {
            consumer.subscribe(List.of(topic), new Told(consumer));
            while (true) readAndCommit(consumer);
        } catch (org.apache.kafka.common.errors.WakeupException asked) {
            say("leaves");
        } catch (FencedInstanceIdException fenced) {
            say("fenced");
        } finally {
            consumer.close();
        }
    }

    static void readAndCommit(KafkaConsumer<byte[], String> consumer) {
        ConsumerRecords<byte[], String> records = consumer.poll(Duration.ofMillis(200));
        Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
        for (TopicPartition partition : records.partitions()) {
            List<ConsumerRecord<byte[], String>> batch = records.records(partition);
            long after = batch.get(batch.size() - 1).offset() + 1;
            String values = batch.stream().map(ConsumerRecord::value).collect(Collectors.joining(","));
            say("read " + partition.partition() + " " + batch.get(0).offset() + " " + after + " " + values);
            next.put(partition, new OffsetAndMetadata(after));
        }
        if (next.isEmpty()) return;
        try {
            consumer.commitSync(next);
            next.forEach((partition, offset) -> say("committed " + partition.partition() + " " + offset.offset()));
        } catch (org.apache.kafka.clients.consumer.CommitFailedException
                | org.apache.kafka.common.errors.RebalanceInProgressException again) {
            // the partitions have moved, or are about to: whoever has them next reads these records again
            say("not committed: " + again.getClass().getSimpleName());
        }
    }

    static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }

    record Told(KafkaConsumer<byte[], String> consumer) implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            say("assigned " + numbers(partitions));
            say("owns " + numbers(consumer.assignment()));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            say("revoked " + numbers(partitions));
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            say("lost " + numbers(partitions));
        }

        static String numbers(Collection<TopicPartition> partitions) {
            return partitions.stream().map(TopicPartition::partition).sorted().map(String::valueOf).collect(Collectors.joining(","));
        }
    }
}
