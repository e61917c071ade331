import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * How often Kafka's own consumer fetches when one of its topics is deleted under it, or deleted and made again: with the client of the
 * control, or with another one from 2.1 on, whose version is the argument. (Before 2.3 it makes a topic again by itself that is deleted.)
 */
public class Deleted {
    private static final Map<String, Object> BOOTSTRAP = Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"));
    private static final int SECONDS = 5;
    /** A fetch waits half a second; some are answered before that, while it learns what has happened. */
    private static final int FETCHES = 6 * SECONDS;

    public static void main(String[] args) {
        Cases cases = new Cases();
        String named = args.length == 0 ? "java-" : "java-" + args[0] + "-";
        for (String which : List.of("a-and-b", "a")) {
            // Kafka answers a fetch of nothing but what is gone at once, thousands of times.
            boolean spins = which.equals("a") && "kafka".equals(System.getenv("BROKER_KIND"));
            if (!spins) cases.run(named + "deleted-" + which, 60, () -> reads(which, false));
            cases.run(named + "made-again-" + which, 60, () -> reads(which, true));
        }
        cases.end();
    }

    private static void reads(String which, boolean again) throws Exception {
        String salt = UUID.randomUUID().toString();
        List<String> topics = Stream.of(which.split("-and-")).map(name -> name + salt).toList();
        try (AdminClient admin = AdminClient.create(BOOTSTRAP); var consumer = consumer()) {
            admin.createTopics(topics.stream().map(name -> new NewTopic(name, 1, (short) 1)).toList()).all().get();
            consumer.assign(topics.stream().map(name -> new TopicPartition(name, 0)).collect(Collectors.toSet()));
            poll(consumer, 2);
            admin.deleteTopics(List.of(topics.get(0))).all().get();
            if (again) admin.createTopics(List.of(new NewTopic(topics.get(0), 1, (short) 1))).all().get();
            double before = fetches(consumer);
            poll(consumer, SECONDS);
            double found = fetches(consumer) - before;
            System.out.println(which + (again ? " made again: " : " deleted: ") + found + " fetches");
            if (found > FETCHES) throw new AssertionError(found + " fetches in " + SECONDS + " s");
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> properties = new HashMap<>(BOOTSTRAP);
        properties.put("auto.offset.reset", "earliest");
        properties.put("allow.auto.create.topics", "false");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void poll(KafkaConsumer<?, ?> consumer, int seconds) {
        long until = System.nanoTime() + seconds * 1_000_000_000L;
        while (System.nanoTime() < until) consumer.poll(Duration.ofMillis(100));
    }

    private static double fetches(KafkaConsumer<?, ?> consumer) {
        return consumer.metrics().values().stream()
            .filter(metric -> metric.metricName().name().equals("fetch-total") && metric.metricName().tags().size() == 1)
            .mapToDouble(metric -> (Double) metric.metricValue()).sum();
    }
}
