import java.io.PrintStream;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs cases and says how each ended, in the words that tests/lib/cases.py takes from a program. */
final class Cases {
    interface Body {
        void run() throws Exception;
    }

    // Before Tool takes it: one that hangs still has System.out.
    private static final PrintStream OUT = System.out;

    private final ExecutorService runner = Executors.newSingleThreadExecutor();

    // How many times its limit a case has: the limits are for a machine that does nothing else.
    private static final int PATIENCE = 3;

    void run(String name, int seconds, Body body) {
        int limitSeconds = PATIENCE * seconds;
        long began = System.nanoTime();
        Future<?> done = runner.submit(() -> {
            body.run();
            return null;
        });
        try {
            done.get(limitSeconds, TimeUnit.SECONDS);
            say(name, "pass", began, "");
        } catch (ExecutionException failed) {
            failed.getCause().printStackTrace();
            say(name, "fail", began, failed.getCause().toString());
        } catch (TimeoutException | InterruptedException late) {
            say(name, "fail", began, "not finished after " + limitSeconds + " s");
            Runtime.getRuntime().halt(1);
        }
    }

    void end() {
        OUT.println("cases\tend");
        OUT.flush();
        // Tools leave threads and shutdown hooks behind.
        Runtime.getRuntime().halt(0);
    }

    private static void say(String name, String outcome, long began, String reason) {
        double seconds = (System.nanoTime() - began) / 1e9;
        OUT.printf("case\t%s\t%s\t%.1f\t%s%n", name, outcome, seconds, reason.replaceAll("\\s+", " "));
        OUT.flush();
    }
}
