import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the programs behind Kafka's scripts inside this JVM, one at a time: their own start costs more than all they do. What they
 * print is kept, and where they would end the process only they end.
 */
final class Tool {
    private static final String PACKAGE = "org.apache.kafka.tools.";

    private static final Switch OUT = new Switch(System.out);
    private static final Switch ERR = new Switch(System.err);

    private Tool() {}

    /** To be called before anything logs: a logger keeps the stream that it has found. */
    static void prepare() {
        System.setOut(new PrintStream(OUT, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(ERR, true, StandardCharsets.UTF_8));
    }

    /** Goes where this process's own output goes, or into what a program has said. */
    private static final class Switch extends OutputStream {
        private final OutputStream own;
        private volatile OutputStream current;

        Switch(OutputStream own) {
            this.own = own;
            current = own;
        }

        @Override
        public void write(int b) throws IOException {
            current.write(b);
        }

        @Override
        public void write(byte[] bytes, int from, int count) throws IOException {
            current.write(bytes, from, count);
        }

        @Override
        public void flush() throws IOException {
            current.flush();
        }
    }

    /** What a program has said, and the code with which it would have ended. */
    record Said(String command, int code, String text) {
        Said succeeded() {
            return ended(0);
        }

        Said ended(int expected) {
            check(code == expected, "ended with " + code + ", not " + expected);
            return this;
        }

        /** Each of these is somewhere in what it said. */
        Said with(String... parts) {
            for (String part : parts) check(text.contains(part), "does not say '" + part + "'");
            return this;
        }

        Said without(String part) {
            check(!text.contains(part), "says '" + part + "'");
            return this;
        }

        /** The groups of the first match. */
        String[] match(String regex) {
            Matcher matcher = Pattern.compile(regex, Pattern.MULTILINE).matcher(text);
            check(matcher.find(), "does not say anything like '" + regex + "'");
            String[] groups = new String[matcher.groupCount()];
            for (int i = 0; i < groups.length; i++) groups[i] = matcher.group(i + 1);
            return groups;
        }

        /** The lines that are not blank and not from a log, trimmed and sorted. */
        List<String> sortedLines() {
            return text.lines().map(String::strip).filter(line -> !line.isEmpty() && !line.startsWith("[20")).sorted().toList();
        }

        /** The rows below a heading that begins with this column, by the columns' names. */
        List<Map<String, String>> table(String firstColumn) {
            List<Map<String, String>> rows = new ArrayList<>();
            String[] heading = null;
            // "HOST (ID)" is one column
            for (String line : text.replaceAll(" +\\(", "(").lines().map(String::strip).toList()) {
                String[] cells = line.split("\\s+");
                if (cells[0].equals(firstColumn)) {
                    heading = cells;
                } else if (line.isEmpty()) {
                    if (!rows.isEmpty()) break;
                } else if (heading != null && cells.length >= heading.length) {
                    Map<String, String> row = new HashMap<>();
                    for (int i = 0; i < heading.length; i++) row.put(heading[i], cells[i]);
                    rows.add(row);
                }
            }
            check(heading != null, "prints no table of " + firstColumn);
            return rows;
        }

        void check(boolean holds, String otherwise) {
            if (!holds) throw new AssertionError(command + " " + otherwise + "; it said: " + text.strip());
        }
    }

    /** Ends the thread in which a program has asked for the process to end. */
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1;
    }

    /** A program of Kafka's tools' package, or one that is named with its own package, which reads `input`. */
    static Said run(String input, String program, String... arguments) {
        InputStream in = System.in;
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        int[] code = {-1};
        // Some of them catch all that is thrown, this too, and ask for another end then: the first word counts.
        Exit.Procedure end = (asked, message) -> {
            if (code[0] < 0) code[0] = asked;
            throw new Ended();
        };
        try {
            OUT.current = said;
            ERR.current = said;
            System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
            Exit.setExitProcedure(end);
            Exit.setHaltProcedure(end);
            String name = program.startsWith("kafka.") ? program : PACKAGE + program;
            Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof Ended)) {
                code[0] = 1;
                said.writeBytes(thrown.getCause().toString().getBytes(StandardCharsets.UTF_8));
            }
        } catch (ReflectiveOperationException none) {
            throw new AssertionError("Kafka's jars have no program " + program, none);
        } finally {
            OUT.current = OUT.own;
            ERR.current = ERR.own;
            System.setIn(in);
            Exit.resetExitProcedure();
            Exit.resetHaltProcedure();
        }
        String command = program.substring(program.lastIndexOf('.') + 1) + " " + String.join(" ", arguments);
        return new Said(command, Math.max(code[0], 0), said.toString(StandardCharsets.UTF_8));
    }
}
