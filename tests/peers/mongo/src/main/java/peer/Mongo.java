package peer;

import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import java.util.List;

/** A database in memory behind MongoDB's wire protocol: peer.Mongo PORT, until it is ended. */
public final class Mongo {
    private Mongo() {}

    /** Its own newest version says a wire version that pymongo refuses, though it speaks what pymongo wants. */
    private enum Said implements MongoVersion {
        MONGO_5_0;

        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    }

    public static void main(String[] arguments) {
        MemoryBackend backend = new MemoryBackend();
        backend.version(Said.MONGO_5_0);
        MongoServer server = new MongoServer(backend);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    }
}
