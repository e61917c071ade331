import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What is not served here is refused so that Kafka's own clients end with an error that says so, and do not wait. */
public class Refusals {
    private static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    // A client that is told for good ends within this time, that of its first start in a JVM included.
    private static final int LIMIT = 30;

    public static void main(String[] args) {
        Cases cases = new Cases();
        if (!"kafka".equals(System.getenv("BROKER_KIND"))) {
            cases.run("java-transactions", LIMIT, Refusals::transactions);
            cases.run("java-consumer-protocol", LIMIT, Refusals::consumerProtocol);
            cases.run("java-share-groups", LIMIT, Refusals::shareGroups);
            // The control has an authorizer.
            cases.run("java-listings", LIMIT, Refusals::listings);
        }
        cases.run("java-sasl", LIMIT, Refusals::sasl);
        cases.end();
    }

    private static Map<String, Object> properties(String... more) {
        Map<String, Object> all = new HashMap<>();
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
        Map<String, Object> properties = properties("transactional.id", "t-" + UUID.randomUUID());
        try (var producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            says("transactions are not served by this broker", () -> {
                producer.initTransactions();
                return null;
            });
        }
    }

    private static void consumerProtocol() throws Exception {
        Map<String, Object> properties = properties("group.id", "g-" + UUID.randomUUID(), "group.protocol", "consumer");
        try (var consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of("refusals"));
            says("group.protocol=classic", () -> consumer.poll(Duration.ofSeconds(LIMIT)));
        }
    }

    private static void shareGroups() throws Exception {
        Map<String, Object> properties = properties("group.id", "s-" + UUID.randomUUID());
        try (var consumer = new KafkaShareConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of("refusals"));
            // It tells of the error when the time of the poll is over.
            says("does not support the share group protocol", () -> consumer.poll(Duration.ofSeconds(1)));
        }
    }

    private static void sasl() throws Exception {
        String login = "org.apache.kafka.common.security.plain.PlainLoginModule required username=u password=p;";
        Map<String, Object> properties =
            properties("security.protocol", "SASL_PLAINTEXT", "sasl.mechanism", "PLAIN", "sasl.jaas.config", login);
        try (Admin admin = Admin.create(properties)) {
            says("IllegalSaslState", () -> admin.describeCluster().clusterId().get());
        }
    }

    private static void listings() throws Exception {
        try (Admin admin = Admin.create(properties())) {
            says("SecurityDisabled", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
            says("SecurityDisabled", () -> admin.deleteAcls(List.of(AclBindingFilter.ANY)).all().get());
            none(admin.describeUserScramCredentials().all().get());
            says("ResourceNotFound", () -> admin.describeUserScramCredentials(List.of("u")).description("u").get());
            none(admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
            if (!admin.listTransactions().all().get().isEmpty()) throw new AssertionError("there are transactions");
            says("ClusterAuthorization", () -> admin.describeTransactions(List.of("x")).all().get());
        }
    }

    private static void none(Map<?, ?> listed) {
        if (!listed.isEmpty()) throw new AssertionError(listed);
    }
}
