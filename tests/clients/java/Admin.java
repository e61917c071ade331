import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.kafka.common.TopicPartition;

/**
 * Kafka's own tools against the broker at BOOTSTRAP: what an operator asks of a broker, and the numbers that he must be told. How
 * they lay out what they print is theirs; what is compared is what the broker has answered.
 *
 * <p>Arguments: what makes names new, and the names of cases if it shall not be all.
 */
public final class Admin {
    private static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    /** When the first record of the data was written: long enough ago to be told from now, not so long that retention takes it. */
    private static final long BEGAN = System.currentTimeMillis() / 1000 * 1000 - 3_600_000;

    private final String salt;
    private final Data data = new Data(BOOTSTRAP);

    private Admin(String salt) {
        this.salt = salt;
    }

    public static void main(String[] args) {
        Cases cases = new Cases();
        Tool.prepare();
        Admin admin = new Admin(args[0]);
        Map<String, Cases.Body> all = admin.cases();
        List<String> chosen = args.length > 1 ? Arrays.asList(args).subList(1, args.length) : List.copyOf(all.keySet());
        all.forEach((name, body) -> {
            if (chosen.contains(name)) cases.run(name, 60, body);
        });
        cases.end();
    }

    private Map<String, Cases.Body> cases() {
        Map<String, Cases.Body> all = new java.util.LinkedHashMap<>();
        all.put("topics-create-describe-alter-delete", this::topicsWhole);
        all.put("topics-refused", this::topicsRefused);
        all.put("configs-of-topics", this::topicConfigs);
        all.put("configs-refused", this::configsRefused);
        all.put("configs-of-brokers", this::brokerConfigs);
        all.put("groups-with-members", this::groupWithMembers);
        all.put("groups-without-members", this::groupWithoutMembers);
        all.put("groups-reset-by-offset", this::resetByOffset);
        all.put("groups-reset-by-time", this::resetByTime);
        all.put("groups-reset-from-file", this::resetFromFile);
        all.put("groups-delete-offsets", this::deleteOffsets);
        all.put("groups-delete", this::deleteGroups);
        all.put("groups-of-any-kind", this::anyGroups);
        all.put("delete-records", this::deleteRecords);
        all.put("get-offsets", this::getOffsets);
        all.put("log-dirs", this::logDirs);
        all.put("broker-api-versions", this::apiVersions);
        all.put("cluster", this::cluster);
        all.put("quorum-and-features", this::quorum);
        all.put("leaders-and-reassignments", this::leadersAndReassignments);
        all.put("console-keys-headers-offsets", this::console);
        all.put("console-codecs", this::consoleCodecs);
        all.put("console-group", this::consoleGroup);
        all.put("end-to-end-latency", this::endToEnd);
        return all;
    }

    private String named(String name) {
        return name + "-" + salt;
    }

    // ---- running the tools

    private static Tool.Said tool(String program, String... arguments) {
        return toolReading("", program, arguments);
    }

    private static Tool.Said toolReading(String input, String program, String... arguments) {
        Stream<String> all = Stream.concat(Arrays.stream(arguments), Stream.of("--bootstrap-server", BOOTSTRAP));
        return Tool.run(input, program, all.toArray(String[]::new));
    }

    private static Tool.Said topics(String... arguments) {
        return tool("TopicCommand", arguments);
    }

    private static Tool.Said configs(String... arguments) {
        return tool("kafka.admin.ConfigCommand", arguments);
    }

    private static Tool.Said groups(String... arguments) {
        return tool("consumer.group.ConsumerGroupCommand", arguments);
    }

    private String topic(String name, int partitions) {
        String topic = named(name);
        topics("--create", "--topic", topic, "--partitions", String.valueOf(partitions)).succeeded();
        return topic;
    }

    private static List<String> lines(Tool.Said said) {
        return said.succeeded().sortedLines();
    }

    private static void same(Object found, Object expected, String what) {
        if (!expected.equals(found)) throw new AssertionError(what + ": " + found + ", not " + expected);
    }

    /** A Kafka that has answered a change may not show it yet. */
    private static <T> void soon(Supplier<T> found, T expected, String what) {
        long deadline = System.nanoTime() + 30_000_000_000L;
        T last = found.get();
        while (!expected.equals(last) && System.nanoTime() < deadline) last = found.get();
        same(last, expected, what);
    }

    // ---- kafka-topics

    private void topicsWhole() {
        String topic = named("made");
        topics("--create", "--topic", topic, "--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=123456789",
                "--config", "max.message.bytes=54321").succeeded().with("Created topic " + topic);
        same(shape(topic), "3 partitions, 1 replica, max.message.bytes=54321,retention.ms=123456789", "as created");
        String broker = topics("--describe", "--topic", topic).match("Leader: (\\d+)\\s+Replicas: (\\d+)\\s+Isr: (\\d+)")[0];
        topics("--list").succeeded().with(topic);
        topics("--list", "--topic", topic.substring(0, topic.length() - 1) + ".").succeeded().with(topic);
        topics("--describe", "--topics-with-overrides").succeeded().with(topic);

        topics("--alter", "--topic", topic, "--partitions", "5").succeeded();
        soon(() -> topics("--describe", "--topic", topic).succeeded().text().lines()
                .filter(l -> l.contains("Partition: ") && l.contains("Leader: " + broker)).count(), 5L, "led partitions");
        for (String unwell : List.of("--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions",
                "--at-min-isr-partitions")) {
            Tool.Said said = topics("--describe", "--topic", topic, unwell).succeeded();
            // one replica is what is asked for, so that "at the least" is all of them
            if (unwell.startsWith("--at")) said.with(topic); else said.without(topic);
        }

        String placed = named("placed");
        topics("--create", "--topic", placed, "--replica-assignment", broker + "," + broker).succeeded();
        same(shape(placed), "2 partitions, 1 replica, ", "with given replicas");
        String standard = named("standard");
        topics("--create", "--topic", standard).succeeded();
        same(shape(standard), "1 partitions, 1 replica, ", "with the broker's own numbers");

        for (String name : List.of(topic, placed, standard)) topics("--delete", "--topic", name).succeeded();
        topics("--list").succeeded().without(topic).without(placed).without(standard);
    }

    /** What kafka-topics says of a topic as a whole. */
    private static String shape(String topic) {
        String[] said = topics("--describe", "--topic", topic).succeeded()
                .match("Topic: \\S+\\s+TopicId: \\S{22}\\s+PartitionCount: (\\d+)\\s+ReplicationFactor: (\\d+)\\s+Configs:[ \t]*(\\S*)");
        // that one is shown by a Kafka whose controller has set it for all brokers
        String sorted = Arrays.stream(said[2].split(",")).filter(c -> !c.equals("min.insync.replicas=1")).sorted()
                .collect(Collectors.joining(","));
        return said[0] + " partitions, " + said[1] + " replica, " + sorted;
    }

    private void topicsRefused() {
        String topic = topic("refused", 3);
        topics("--create", "--topic", topic).ended(1).with("already exists");
        topics("--create", "--topic", topic, "--if-not-exists").succeeded();
        topics("--create", "--topic", named("two"), "--replication-factor", "2").ended(1).with("InvalidReplicationFactorException");
        topics("--create", "--topic", named("odd") + "/", "--partitions", "1").ended(1).with("InvalidTopicException");
        topics("--create", "--topic", named("unheard"), "--config", "no.such.setting=1").ended(1).with("no.such.setting");
        topics("--create", "--topic", named("value"), "--config", "retention.ms=soon").ended(1).with("retention.ms");
        topics("--alter", "--topic", topic, "--partitions", "2").ended(1).with("InvalidPartitionsException");
        topics("--alter", "--topic", topic, "--partitions", "3").ended(1).with("InvalidPartitionsException");
        topics("--alter", "--topic", named("nobody"), "--partitions", "3").ended(1);
        topics("--describe", "--topic", named("nobody")).ended(1);
        topics("--delete", "--topic", named("nobody")).ended(1);
        topics("--delete", "--topic", named("nobody"), "--if-exists").succeeded();
        same(shape(topic), "3 partitions, 1 replica, ", "after all that");
        topics("--list").without(named("two")).without(named("odd")).without(named("unheard")).without(named("value"));
    }

    // ---- kafka-configs

    private void topicConfigs() {
        String topic = topic("configs", 1);
        String[] named = {"--entity-type", "topics", "--entity-name", topic};
        soon(() -> overrides(topic), Map.of(), "at first");
        configs(with(named, "--alter", "--add-config", "retention.ms=777777,max.message.bytes=2000000")).succeeded();
        soon(() -> overrides(topic), Map.of("retention.ms", "777777", "max.message.bytes", "2000000"), "two are set");
        configs(with(named, "--alter", "--add-config", "retention.ms=888888", "--delete-config", "max.message.bytes")).succeeded();
        soon(() -> overrides(topic), Map.of("retention.ms", "888888"), "one is changed, one is deleted");
        configs(with(named, "--alter", "--add-config", "cleanup.policy=[delete],segment.bytes=104857600")).succeeded();
        soon(() -> overrides(topic), Map.of("retention.ms", "888888", "cleanup.policy", "delete", "segment.bytes", "104857600"), "a list is set");

        Map<String, String> all = values(configs(with(named, "--describe", "--all")).succeeded());
        same(all.get("retention.ms"), "888888", "among all");
        same(all.get("min.insync.replicas"), "1", "a default among all");
        if (all.size() < 20) throw new AssertionError("--all shows " + all);
        // without a name: every topic that there is
        configs("--entity-type", "topics", "--describe").succeeded().with(topic, "retention.ms=888888");
        // the older way to name it
        configs("--topic", topic, "--describe").succeeded().with("retention.ms=888888");
        configs(with(named, "--alter", "--delete-config", "retention.ms,cleanup.policy,segment.bytes")).succeeded();
        soon(() -> overrides(topic), Map.of(), "all are deleted");
    }

    private static String[] with(String[] first, String... then) {
        return Stream.concat(Arrays.stream(first), Arrays.stream(then)).toArray(String[]::new);
    }

    private static Map<String, String> overrides(String topic) {
        return values(configs("--describe", "--entity-type", "topics", "--entity-name", topic).succeeded());
    }

    /** name=value of the lines that begin so. */
    private static Map<String, String> values(Tool.Said said) {
        Map<String, String> values = new TreeMap<>();
        for (String line : said.text().lines().map(String::strip).toList()) {
            String first = line.split("\\s+")[0];
            int equals = first.indexOf('=');
            if (equals > 0) values.put(first.substring(0, equals), first.substring(equals + 1));
        }
        return values;
    }

    private void configsRefused() {
        String topic = topic("configs-refused", 1);
        String[] named = {"--entity-type", "topics", "--entity-name", topic, "--alter"};
        configs(with(named, "--add-config", "no.such.setting=1")).ended(1).with("InvalidConfigurationException", "no.such.setting");
        configs(with(named, "--add-config", "retention.ms=soon")).ended(1).with("retention.ms");
        // one that is wrong keeps those beside it from being set
        configs(with(named, "--add-config", "max.message.bytes=5000,retention.ms=soon")).ended(1);
        configs("--entity-type", "topics", "--entity-name", named("nobody"), "--alter", "--add-config", "retention.ms=1").ended(1);
        soon(() -> overrides(topic), Map.of(), "after all that");
    }

    private void brokerConfigs() {
        String id = topics("--describe", "--topic", topic("of-broker", 1)).match("Leader: (\\d+)")[0];
        Map<String, String> all = values(configs("--entity-type", "brokers", "--entity-name", id, "--describe", "--all").succeeded());
        for (String name : List.of("num.partitions", "message.max.bytes", "auto.create.topics.enable", "log.retention.ms")) {
            if (!all.containsKey(name)) throw new AssertionError("no " + name + " among " + all.keySet());
        }
        configs("--entity-type", "brokers", "--entity-name", id, "--describe").succeeded();
        configs("--entity-type", "brokers", "--entity-default", "--describe").succeeded();
        configs("--entity-type", "brokers", "--entity-name", "77", "--describe").succeeded().with("doesn't exist");
    }

    // ---- kafka-consumer-groups

    private void groupWithMembers() throws Exception {
        String topic = topic("members", 3);
        String group = named("group-with-members");
        data.write(topic, 0, 5, BEGAN);
        try (Data.Member first = data.new Member(group, topic, "first")) {
            data.commit(named("other"), Map.of(new TopicPartition(topic, 0), 1L));
            groups("--list").succeeded().with(group);
            Map<String, String> state = stable(group).get(0);
            same(state.get("STATE"), "Stable", "its state");
            same(state.get("#MEMBERS"), "1", "its members");
            same(state.get("ASSIGNMENT-STRATEGY"), "range", "its strategy");
            same(state.get("COORDINATOR(ID)").replaceAll("\\(.*", ""), BOOTSTRAP, "its coordinator");

            List<Map<String, String>> members = groups("--describe", "--group", group, "--members", "--verbose").succeeded().table("GROUP");
            same(members.size(), 1, "members");
            same(members.get(0).get("CLIENT-ID"), "first", "the member's client");
            same(members.get(0).get("HOST"), "/127.0.0.1", "the member's host");
            same(members.get(0).get("#PARTITIONS"), "3", "the member's partitions");
            String assigned = members.get(0).get("CURRENT-ASSIGNMENT");
            same(assigned, topic + ":0,1,2", "the member's assignment");

            List<Map<String, String>> offsets = groups("--describe", "--group", group, "--offsets").succeeded().table("GROUP");
            same(offsets.size(), 3, "its partitions");
            for (Map<String, String> row : offsets) {
                same(row.get("CLIENT-ID"), "first", "whose the partition is");
                same(row.get("CURRENT-OFFSET"), "-", "nothing is committed");
            }
            same(groups("--list", "--state", "Stable").succeeded().table("GROUP").stream().anyMatch(r -> r.get("GROUP").equals(group)), true,
                    "listed as stable");
            groups("--list", "--state", "Empty").succeeded().without(group).with(named("other"));
            // what a running group has, nobody takes
            groups("--delete", "--group", group).with("not empty");
            groups("--delete-offsets", "--group", group, "--topic", topic).with("GroupSubscribedToTopic");
            groups("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute").with("inactive");
            same(stable(group).get(0).get("STATE"), "Stable", "its state after all that");
        }
        same(stateOf(group), "Empty", "its state when all have left");
    }

    private static List<Map<String, String>> stable(String group) {
        return groups("--describe", "--group", group, "--state").succeeded().table("GROUP");
    }

    private static String stateOf(String group) {
        return stable(group).get(0).get("STATE");
    }

    private void groupWithoutMembers() throws Exception {
        String topic = topic("empty", 2);
        String group = named("empty");
        data.write(topic, 0, 10, BEGAN);
        data.write(topic, 1, 4, BEGAN);
        data.commit(group, Map.of(new TopicPartition(topic, 0), 3L, new TopicPartition(topic, 1), 4L));
        same(stateOf(group), "Empty", "its state");
        same(lag(group), Map.of(topic + "-0", "3 of 10, lag 7", topic + "-1", "4 of 4, lag 0"), "what is committed");
        groups("--describe", "--group", group).with("no active members");
        groups("--describe", "--all-groups").succeeded().with(group);
        groups("--describe", "--group", group, "--members").with("no active members");
        groups("--describe", "--group", named("nobody")).with("not found");
        data.write(topic, 1, 2, BEGAN + 10_000);
        same(lag(group).get(topic + "-1"), "4 of 6, lag 2", "after two more records");
    }

    private static Map<String, String> lag(String group) {
        Map<String, String> lag = new TreeMap<>();
        for (Map<String, String> row : groups("--describe", "--group", group, "--offsets").succeeded().table("GROUP")) {
            lag.put(row.get("TOPIC") + "-" + row.get("PARTITION"),
                    row.get("CURRENT-OFFSET") + " of " + row.get("LOG-END-OFFSET") + ", lag " + row.get("LAG"));
        }
        return lag;
    }

    /** partition -> offset that a reset announces or makes. */
    private static Map<String, String> reset(String group, String... how) {
        Map<String, String> reset = new TreeMap<>();
        String[] command = with(new String[] {"--reset-offsets", "--group", group}, how);
        for (Map<String, String> row : groups(command).succeeded().table("GROUP")) reset.put(row.get("PARTITION"), row.get("NEW-OFFSET"));
        return reset;
    }

    private static Map<String, String> committed(String group) {
        Map<String, String> committed = new TreeMap<>();
        for (Map<String, String> row : groups("--describe", "--group", group, "--offsets").succeeded().table("GROUP")) {
            committed.put(row.get("PARTITION"), row.get("CURRENT-OFFSET"));
        }
        return committed;
    }

    /** A topic of ten records in partition 0 and four in partition 1, a second apart, of which a group has read five and two. */
    private String[] readHalf(String name) throws Exception {
        String topic = topic(name, 2);
        String group = named(name);
        data.write(topic, 0, 10, BEGAN);
        data.write(topic, 1, 4, BEGAN);
        data.commit(group, Map.of(new TopicPartition(topic, 0), 5L, new TopicPartition(topic, 1), 2L));
        return new String[] {topic, group};
    }

    private void resetByOffset() throws Exception {
        String[] half = readHalf("by-offset");
        String topic = half[0];
        String group = half[1];
        same(reset(group, "--topic", topic, "--to-earliest", "--dry-run"), Map.of("0", "0", "1", "0"), "a dry run to the earliest");
        // a run that says neither is a dry one
        same(reset(group, "--topic", topic, "--to-latest"), Map.of("0", "10", "1", "4"), "a dry run to the latest");
        same(committed(group), Map.of("0", "5", "1", "2"), "after dry runs");

        same(reset(group, "--topic", topic, "--shift-by", "-2", "--execute"), Map.of("0", "3", "1", "0"), "shifted back");
        same(committed(group), Map.of("0", "3", "1", "0"), "after shifting back");
        same(reset(group, "--topic", topic, "--shift-by", "3", "--execute"), Map.of("0", "6", "1", "3"), "shifted on");
        // not beyond the ends
        same(reset(group, "--topic", topic, "--shift-by", "3", "--execute"), Map.of("0", "9", "1", "4"), "shifted on to the end");
        same(reset(group, "--topic", topic + ":0", "--to-offset", "7", "--execute"), Map.of("0", "7"), "one partition");
        same(reset(group, "--topic", topic, "--to-offset", "6", "--execute"), Map.of("0", "6", "1", "4"), "an offset that one has not");
        same(committed(group), Map.of("0", "6", "1", "4"), "after that");
        same(reset(group, "--all-topics", "--to-current", "--execute"), Map.of("0", "6", "1", "4"), "to what it is");
        same(reset(group, "--all-topics", "--to-earliest", "--execute"), Map.of("0", "0", "1", "0"), "to the earliest");
        same(committed(group), Map.of("0", "0", "1", "0"), "after that");
        // a group that nobody has heard of is made by it
        String other = named("made-by-reset");
        same(reset(other, "--topic", topic, "--to-latest", "--execute"), Map.of("0", "10", "1", "4"), "a new group");
        same(committed(other), Map.of("0", "10", "1", "4"), "the new group");
    }

    private void resetByTime() throws Exception {
        String[] half = readHalf("by-time");
        String topic = half[0];
        String group = half[1];
        DateTimeFormatter format = DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSXXX").withZone(ZoneOffset.UTC);
        String third = format.format(Instant.ofEpochMilli(BEGAN + 3000));
        String between = format.format(Instant.ofEpochMilli(BEGAN + 1001));
        String after = format.format(Instant.ofEpochMilli(BEGAN + 100_000));
        same(reset(group, "--topic", topic, "--to-datetime", third, "--dry-run"), Map.of("0", "3", "1", "3"), "a record's own time");
        same(reset(group, "--topic", topic, "--to-datetime", between, "--execute"), Map.of("0", "2", "1", "2"), "between two records");
        same(committed(group), Map.of("0", "2", "1", "2"), "after that");
        same(reset(group, "--topic", topic, "--to-datetime", after, "--execute"), Map.of("0", "10", "1", "4"), "after the last record");
        same(reset(group, "--topic", topic, "--by-duration", "P1D", "--execute"), Map.of("0", "0", "1", "0"), "a day ago");
        same(reset(group, "--topic", topic, "--by-duration", "PT1M", "--execute"), Map.of("0", "10", "1", "4"), "a minute ago");
        same(committed(group), Map.of("0", "10", "1", "4"), "after that");
    }

    private void resetFromFile() throws Exception {
        String[] half = readHalf("from-file");
        String topic = half[0];
        String group = half[1];
        Tool.Said exported = groups("--reset-offsets", "--group", group, "--topic", topic, "--to-current", "--export", "--dry-run").succeeded();
        same(exported.sortedLines(), List.of("\"" + topic + "\",0,5", "\"" + topic + "\",1,2"), "what is exported");
        Path plan = Files.createTempFile("plan", ".csv");
        try {
            Files.writeString(plan, topic + ",0,8\n" + topic + ",1,1\n");
            same(reset(group, "--from-file", plan.toString(), "--execute"), Map.of("0", "8", "1", "1"), "as the file says");
        } finally {
            Files.delete(plan);
        }
        same(committed(group), Map.of("0", "8", "1", "1"), "after that");
    }

    private void deleteOffsets() throws Exception {
        String[] half = readHalf("offsets-deleted");
        String topic = half[0];
        String group = half[1];
        List<Map<String, String>> rows = groups("--delete-offsets", "--group", group, "--topic", topic + ":1").succeeded().table("TOPIC");
        same(rows, List.of(Map.of("TOPIC", topic, "PARTITION", "1", "STATUS", "Successful")), "what was deleted");
        same(committed(group), Map.of("0", "5"), "what is left");
        groups("--delete-offsets", "--group", named("nobody"), "--topic", topic).with("does not exist");
        groups("--delete-offsets", "--group", group, "--topic", topic).succeeded().with("Successful");
        same(lines(groups("--list")).contains(group), true, "that the group is still listed");
    }

    private void deleteGroups() throws Exception {
        String group = readHalf("deleted")[1];
        String other = readHalf("deleted-too")[1];
        groups("--delete", "--group", group, "--group", other).succeeded().with("was successful", group, other);
        List<String> left = lines(groups("--list"));
        same(left.contains(group) || left.contains(other), false, "that one is still listed");
        groups("--describe", "--group", group).with("not found");
        groups("--delete", "--group", group).with("does not exist");
    }

    /** kafka-groups, which asks for groups of every protocol. */
    private void anyGroups() throws Exception {
        String group = readHalf("any")[1];
        // offsets that were committed without a member are a classic group's, of no protocol
        tool("GroupsCommand", "--list").succeeded().match("^(" + group + ")\\s+Classic\\s*$");
        tool("GroupsCommand", "--list", "--group-type", "share").succeeded().without(group);
    }

    // ---- records and offsets

    private void deleteRecords() throws Exception {
        String topic = topic("records", 2);
        data.write(topic, 0, 10, BEGAN);
        data.write(topic, 1, 4, BEGAN);
        Path file = Files.createTempFile("offsets", ".json");
        try {
            Files.writeString(file, deletion(topic, 0, 6, 1, -1));
            tool("DeleteRecordsCommand", "--offset-json-file", file.toString()).succeeded()
                    .with("partition: " + topic + "-0\tlow_watermark: 6", "partition: " + topic + "-1\tlow_watermark: 4");
            same(offsets("--topic", topic, "--time", "earliest"), List.of(topic + ":0:6", topic + ":1:4"), "the earliest now");
            same(offsets("--topic", topic, "--time", "latest"), List.of(topic + ":0:10", topic + ":1:4"), "the latest still");
            // again is no harm, and there is no way back
            Files.writeString(file, deletion(topic, 0, 3, 1, 4));
            tool("DeleteRecordsCommand", "--offset-json-file", file.toString()).succeeded().with("-0\tlow_watermark: 6");
            Files.writeString(file, deletion(topic, 0, 11, 1, 4));
            tool("DeleteRecordsCommand", "--offset-json-file", file.toString()).with("OffsetOutOfRangeException", "-1\tlow_watermark: 4");
        } finally {
            Files.delete(file);
        }
        Tool.Said rest = consume("--topic", topic, "--partition", "0", "--from-beginning", "--max-messages", "4").succeeded();
        same(rest.sortedLines().stream().filter(l -> l.startsWith("v")).toList(), List.of("v6", "v7", "v8", "v9"), "what is left");
    }

    private static String deletion(String topic, long... partitionsAndOffsets) {
        StringBuilder partitions = new StringBuilder();
        for (int i = 0; i < partitionsAndOffsets.length; i += 2) {
            partitions.append(i == 0 ? "" : ",").append("{\"topic\":\"").append(topic).append("\",\"partition\":").append(partitionsAndOffsets[i])
                    .append(",\"offset\":").append(partitionsAndOffsets[i + 1]).append('}');
        }
        return "{\"version\":1,\"partitions\":[" + partitions + "]}";
    }

    private static List<String> offsets(String... arguments) {
        return tool("GetOffsetShell", arguments).succeeded().sortedLines();
    }

    private void getOffsets() throws Exception {
        String topic = topic("offsets", 3);
        data.write(topic, 0, 10, BEGAN);
        data.write(topic, 1, 4, BEGAN);
        // older than what is there already: the greatest timestamp is not the last one
        data.write(topic, 1, 2, BEGAN - 60_000);
        String zero = topic + ":0:";
        String one = topic + ":1:";
        String two = topic + ":2:";
        same(offsets("--topic", topic), List.of(zero + "10", one + "6", two + "0"), "the latest, if nothing is said");
        same(offsets("--topic", topic, "--time", "-1"), List.of(zero + "10", one + "6", two + "0"), "the latest");
        same(offsets("--topic", topic, "--time", "-2"), List.of(zero + "0", one + "0", two + "0"), "the earliest");
        same(offsets("--topic", topic, "--time", "max-timestamp"), List.of(zero + "9", one + "3"), "the greatest timestamp");
        same(offsets("--topic", topic, "--time", "-4"), List.of(zero + "0", one + "0", two + "0"), "the earliest that is not tiered");
        same(offsets("--topic", topic, "--time", "latest-tiered"), List.of(), "the latest that is tiered");
        same(offsets("--topic", topic, "--time", "" + (BEGAN + 2500)), List.of(zero + "3", one + "3"), "by time");
        same(offsets("--topic", topic, "--time", "" + (BEGAN + 3600_000)), List.of(), "after the last");
        same(offsets("--topic", topic, "--partitions", "1,2"), List.of(one + "6", two + "0"), "two partitions");
        same(offsets("--topic-partitions", topic + ":0-2"), List.of(zero + "10", one + "6"), "a range of partitions");
        tool("GetOffsetShell", "--topic", named("nobody")).ended(1).with("Could not match any topic-partitions");
    }

    // ---- the broker

    private void logDirs() throws Exception {
        String topic = topic("log-dirs", 2);
        data.write(topic, 0, 10, BEGAN);
        String broker = topics("--describe", "--topic", topic).match("Leader: (\\d+)")[0];
        Tool.Said said = tool("LogDirsCommand", "--describe", "--topic-list", topic, "--broker-list", broker).succeeded();
        said.with("\"broker\":" + broker, "\"error\":null");
        String[] zero = said.match("\\{[^{}]*\"partition\":\"" + topic + "-0\"[^{}]*\"size\":(\\d+)");
        if (zero.length == 0 || Long.parseLong(zero[0]) < 10 * 61) throw new AssertionError("ten batches take only " + said.text());
        said.with("\"partition\":\"" + topic + "-1\"", "\"offsetLag\":0", "\"isFuture\":false");
        tool("LogDirsCommand", "--describe").succeeded().with(topic + "-0");
        tool("LogDirsCommand", "--describe", "--broker-list", "77").ended(1);
    }

    private void apiVersions() {
        Tool.Said said = tool("BrokerApiVersionsCommand").succeeded();
        said.with("Produce(0): 0 to 13 [usable: 13]", "Fetch(1): 4 to 18 [usable: 18]", "ListOffsets(2): 1 to 11 [usable: 11]",
                "Metadata(3): 0 to 13 [usable: 13]", "OffsetCommit(8): 2 to 10 [usable: 10]", "JoinGroup(11): 0 to 9 [usable: 9]",
                "CreateTopics(19): 2 to 7 [usable: 7]", "DescribeTopicPartitions(75): 0 [usable: 0]");
        said.match("^127\\.0\\.0\\.1:\\d+ \\(id: \\d+ rack: \\S+( isFenced: false)?\\) -> \\(");
    }

    private void cluster() {
        String id = tool("ClusterTool", "cluster-id").succeeded().match("Cluster ID: (\\S{22})$")[0];
        same(tool("ClusterTool", "cluster-id").match("Cluster ID: (\\S{22})$")[0], id, "the cluster's id, asked again");
        tool("ClusterTool", "list-endpoints").succeeded().match("\\d+\\s+127\\.0\\.0\\.1\\s+" + BOOTSTRAP.split(":")[1]);
    }

    private void quorum() {
        String[] at = {"--bootstrap-server", BOOTSTRAP};
        Tool.Said status = Tool.run("", "MetadataQuorumCommand", with(at, "describe", "--status")).succeeded();
        String leader = status.match("^LeaderId:\\s+(\\d+)$")[0];
        status.match("^CurrentVoters:\\s+\\[\\{\"id\": (" + leader + ")\\D");
        List<Map<String, String>> nodes = Tool.run("", "MetadataQuorumCommand", with(at, "describe", "--replication")).succeeded().table("NodeId");
        same(nodes.size(), 1, "nodes");
        same(List.of(nodes.get(0).get("NodeId"), nodes.get(0).get("Status"), nodes.get(0).get("Lag")), List.of(leader, "Leader", "0"), "the node");
        // a broker may have none, but it has to be able to say so
        Tool.run("", "FeatureCommand", with(at, "describe")).succeeded();
    }

    /** With one replica of everything there is nothing to choose, which is an answer too. */
    private void leadersAndReassignments() throws Exception {
        String topic = topic("led", 2);
        tool("LeaderElectionCommand", "--election-type", "preferred", "--topic", topic, "--partition", "0").succeeded()
                .with("Valid replica already elected for partitions " + topic + "-0");
        tool("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions").succeeded();
        tool("reassign.ReassignPartitionsCommand", "--list").succeeded().with("No partition reassignments found");
        String broker = topics("--describe", "--topic", topic).match("Leader: (\\d+)")[0];
        Path file = Files.createTempFile("reassignment", ".json");
        try {
            Files.writeString(file, "{\"version\":1,\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":1,\"replicas\":[" + broker + "]}]}");
            tool("reassign.ReassignPartitionsCommand", "--execute", "--reassignment-json-file", file.toString()).succeeded()
                    .with("Successfully started partition reassignment");
            tool("reassign.ReassignPartitionsCommand", "--verify", "--reassignment-json-file", file.toString()).succeeded()
                    .with("Reassignment of partition " + topic + "-1 is completed");
        } finally {
            Files.delete(file);
        }
    }

    // ---- kafka-console-producer and kafka-console-consumer

    private static Tool.Said consume(String... arguments) {
        return tool("consumer.ConsoleConsumer", with(arguments, "--timeout-ms", "20000"));
    }

    private void console() {
        String topic = topic("console", 1);
        toolReading("h:1\tk1\tv1\nh:2,g:3\tk2\tv2\n", "ConsoleProducer", "--topic", topic, "--reader-property", "parse.key=true",
                "--reader-property", "parse.headers=true").succeeded();
        String[] shown = {"--formatter-property", "print.key=true", "--formatter-property", "print.headers=true", "--formatter-property",
            "print.offset=true", "--formatter-property", "print.partition=true", "--formatter-property", "print.timestamp=true"};
        Tool.Said all = consume(with(shown, "--topic", topic, "--from-beginning", "--max-messages", "2")).succeeded();
        all.match("^CreateTime:\\d+\tPartition:0\tOffset:0\th:1\tk1\tv1$");
        all.match("^CreateTime:\\d+\tPartition:0\tOffset:1\th:2,g:3\tk2\tv2$");
        consume(with(shown, "--topic", topic, "--partition", "0", "--offset", "1", "--max-messages", "1")).succeeded().with("v2").without("v1");
        consume(with(shown, "--topic", topic, "--from-beginning", "--isolation-level", "read_committed", "--max-messages", "2")).succeeded()
                .with("v1", "v2");
        // LogAppendTime is the broker's word
        configs("--entity-type", "topics", "--entity-name", topic, "--alter", "--add-config", "message.timestamp.type=LogAppendTime").succeeded();
        toolReading("late\n", "ConsoleProducer", "--topic", topic).succeeded();
        consume(with(shown, "--topic", topic, "--partition", "0", "--offset", "2", "--max-messages", "1")).succeeded()
                .match("^LogAppendTime:\\d+\tPartition:0\tOffset:2\tNO_HEADERS\tnull\tlate$");
    }

    private void consoleCodecs() {
        String topic = topic("codecs", 1);
        List<String> codecs = List.of("none", "gzip", "snappy", "lz4", "zstd");
        for (String codec : codecs) {
            toolReading((codec + "-value\n").repeat(3), "ConsoleProducer", "--topic", topic, "--compression-codec", codec).succeeded();
        }
        Tool.Said all = consume("--topic", topic, "--from-beginning", "--max-messages", "15").succeeded();
        for (String codec : codecs) same(all.text().lines().filter((codec + "-value")::equals).count(), 3L, codec);
    }

    private void consoleGroup() {
        String topic = topic("console-group", 2);
        String group = named("console-group");
        toolReading("a\nb\nc\nd\n", "ConsoleProducer", "--topic", topic, "--command-property", "acks=1").succeeded();
        consume("--topic", topic, "--group", group, "--from-beginning", "--max-messages", "4").succeeded().with("a", "b", "c", "d");
        long read = committed(group).values().stream().filter(o -> !o.equals("-")).mapToLong(Long::parseLong).sum();
        same(read, 4L, "what it has committed on leaving");
        toolReading("e\n", "ConsoleProducer", "--topic", topic).succeeded();
        List<String> rest = lines(consume("--topic", topic, "--group", group, "--max-messages", "1"));
        same(rest.contains("e") && !rest.contains("a"), true, "that it goes on from there with " + rest);
    }

    /** kafka-e2e-latency, which makes its topic itself. */
    private void endToEnd() {
        tool("EndToEndLatency", "--topic", named("end-to-end"), "--num-records", "200", "--producer-acks", "all", "--record-size", "100").succeeded()
                .match("^Percentiles: 50th = (\\d+), 99th = (\\d+), 99\\.9th = (\\d+)");
    }
}
