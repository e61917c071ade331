import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Feed BOOTSTRAP TOPIC PARTITIONS RECORDS PER_SECOND: creates the topic and writes RECORDS numbered records into each partition with
 * the producer's defaults (idempotent, acks=all). Says "created", and at the end "fed" with how many were acknowledged.
 */
public class Feed {
    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int partitions = Integer.parseInt(args[2]), records = Integer.parseInt(args[3]), perSecond = Integer.parseInt(args[4]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        try (Admin admin = Admin.create(properties)) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        }
        System.out.println("created");
        properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        AtomicInteger acknowledged = new AtomicInteger();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(properties)) {
            long began = System.nanoTime();
            for (int i = 0; i < records; i++) {
                for (int p = 0; p < partitions; p++) {
                    producer.send(new ProducerRecord<>(topic, p, "k" + i, Integer.toString(i)), (metadata, failure) -> {
                        if (failure == null) acknowledged.incrementAndGet();
                        else System.out.println("failed " + failure);
                    });
                }
                long due = began + (i + 1L) * partitions * 1_000_000_000L / perSecond;
                while (System.nanoTime() < due) Thread.sleep(1);
            }
        }
        System.out.println("fed " + acknowledged.get());
    }
}
