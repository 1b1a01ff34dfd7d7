package peer;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Apicurio's registry: peer.Registry USERS, with its settings as system properties.
 *
 * It ends by itself once nobody holds a shared lock on the file USERS any more: so several processes of tests share it,
 * and none is left behind.
 */
public final class Registry {
    private Registry() {}

    public static void main(String[] arguments) throws Exception {
        Thread watch = new Thread(() -> endUnused(Path.of(arguments[0])), "users");
        watch.setDaemon(true);
        watch.start();
        Class.forName("io.quarkus.runner.GeneratedMain")
                .getMethod("main", String[].class)
                .invoke(null, (Object) new String[0]);
    }

    private static void endUnused(Path users) {
        try (FileChannel file = FileChannel.open(users, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            FileLock alone = file.lock(); // waits until the last user has gone
            Runtime.getRuntime().halt(alone.isValid() ? 0 : 1); // what it holds goes anyway
        } catch (IOException error) {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }
}
