package peer;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import kafka.Kafka;
import kafka.tools.StorageTool;

/**
 * A Kafka broker of one node: peer.Broker SETTINGS CLUSTER [USERS]
 *
 * It formats its storage where that is new. With USERS, a file that each of its users holds a shared lock on, it ends
 * by itself once nobody holds one any more: so several processes of tests share a broker, and none is left behind.
 */
public final class Broker {
    private Broker() {}

    public static void main(String[] arguments) throws Exception {
        int failed = StorageTool.execute(
                new String[] {"format", "--ignore-formatted", "-t", arguments[1], "-c", arguments[0]}, System.out);
        if (failed != 0) {
            System.exit(failed);
        }
        if (arguments.length > 2) {
            Thread watch = new Thread(() -> endUnused(Path.of(arguments[2])), "users");
            watch.setDaemon(true);
            watch.start();
        }
        Kafka.main(new String[] {arguments[0]});
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
