import java.time.Duration;
import java.util.Collections;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What Refusals asks, as far as Kafka's clients from 2.1 on have it: run with each of them, whose version is the argument. */
public class OldRefusals {
    private static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    private static String version;
    private static final int LIMIT = 30;

    public static void main(String[] args) {
        version = args[0];
        Cases cases = new Cases();
        String named = "java-" + version + "-";
        if (!"kafka".equals(System.getenv("BROKER_KIND"))) {
            cases.run(named + "transactions", LIMIT, OldRefusals::transactions);
            // The control has an authorizer.
            cases.run(named + "acls", LIMIT, OldRefusals::acls);
            if (hasNewerGroups()) cases.run(named + "consumer-protocol", LIMIT, OldRefusals::consumerProtocol);
        }
        cases.run(named + "sasl", LIMIT, OldRefusals::sasl);
        cases.end();
    }

    private static boolean hasNewerGroups() {
        String[] parts = version.split("\\.");
        return Integer.parseInt(parts[0]) > 3 || (parts[0].equals("3") && Integer.parseInt(parts[1]) >= 7);
    }

    private static Properties properties(String... more) {
        Properties all = new Properties();
        all.put("bootstrap.servers", BOOTSTRAP);
        for (int i = 0; i < more.length; i += 2) all.put(more[i], more[i + 1]);
        return all;
    }

    /** Fails unless the call fails with a text like this, in the error or what has caused it. */
    private static void says(String expected, Callable<?> call) throws Exception {
        Object found;
        try {
            found = call.call();
        } catch (Exception error) {
            for (Throwable one = error; one != null; one = one.getCause()) {
                if (one.toString().contains(expected)) return;
            }
            throw error;
        }
        throw new AssertionError("not refused: " + found);
    }

    private static void transactions() throws Exception {
        Properties properties = properties("transactional.id", "t-" + UUID.randomUUID());
        try (KafkaProducer<byte[], byte[]> producer =
            new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            // The oldest shows no text of a broker, but the error's own.
            says(version.startsWith("2.1.") ? "luster authorization failed" : "transactions are not served by this broker", () -> {
                producer.initTransactions();
                return null;
            });
        }
    }

    private static void consumerProtocol() throws Exception {
        Properties properties = properties("group.id", "g-" + UUID.randomUUID(), "group.protocol", "consumer");
        try (KafkaConsumer<byte[], byte[]> consumer =
            new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Collections.singletonList("refusals"));
            says("group.protocol=classic", () -> consumer.poll(Duration.ofSeconds(LIMIT)));
        }
    }

    private static void sasl() throws Exception {
        String login = "org.apache.kafka.common.security.plain.PlainLoginModule required username=u password=p;";
        Properties properties =
            properties("security.protocol", "SASL_PLAINTEXT", "sasl.mechanism", "PLAIN", "sasl.jaas.config", login);
        try (AdminClient admin = AdminClient.create(properties)) {
            says("IllegalSaslState", () -> admin.describeCluster().clusterId().get());
        }
    }

    private static void acls() throws Exception {
        try (AdminClient admin = AdminClient.create(properties())) {
            says("SecurityDisabled", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
            says("SecurityDisabled", () -> admin.deleteAcls(Collections.singletonList(AclBindingFilter.ANY)).all().get());
        }
    }
}
