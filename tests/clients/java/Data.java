import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** What the tools are to find: records, committed offsets, members of groups. */
final class Data {
    private final String bootstrap;

    Data(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    /** Writes `count` records to a partition, a batch each and a second apart, the first at `firstTime`. */
    void write(String topic, int partition, int count, long firstTime) throws Exception {
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(producer())) {
            for (int i = 0; i < count; i++) {
                long time = firstTime + i * 1000L;
                producer.send(new ProducerRecord<>(topic, partition, time, "k" + i, "v" + i)).get();
            }
        }
    }

    /** Commits without being a member, as a program does that assigns itself its partitions. */
    void commit(String group, Map<TopicPartition, Long> offsets) {
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(consumerOf(group))) {
            Map<TopicPartition, OffsetAndMetadata> all = new HashMap<>();
            offsets.forEach((partition, offset) -> all.put(partition, new OffsetAndMetadata(offset)));
            consumer.commitSync(all, Duration.ofSeconds(20));
        }
    }

    private Properties producer() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("linger.ms", "0");
        properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        return properties;
    }

    private Properties consumerOf(String group) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("group.id", group);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        properties.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        return properties;
    }

    /** A member that has its assignment and keeps polling until it is closed. */
    final class Member implements AutoCloseable {
        private final AtomicBoolean ended = new AtomicBoolean();
        private final Thread thread;
        private volatile int partitions;

        Member(String group, String topic, String clientId) throws InterruptedException {
            thread = new Thread(() -> poll(group, topic, clientId), clientId);
            thread.setDaemon(true);
            thread.start();
            for (int i = 0; partitions == 0; i++) {
                if (i == 1000) throw new AssertionError(clientId + " gets no partition of " + topic);
                Thread.sleep(20);
            }
        }

        private void poll(String group, String topic, String clientId) {
            Properties properties = consumerOf(group);
            properties.put("client.id", clientId);
            try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
                consumer.subscribe(List.of(topic));
                while (!ended.get()) {
                    consumer.poll(Duration.ofMillis(100));
                    partitions = consumer.assignment().size();
                }
            }
        }

        @Override
        public void close() throws InterruptedException {
            ended.set(true);
            thread.join(20_000);
        }
    }
}
