package peer;

import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;
import org.h2.mvstore.MVStore;

/** A database behind MongoDB's wire protocol, until it is ended: peer.Mongo PORT [FILE], without a file in memory. */
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

    /** What it answers for is in its file, as with a real server's journal: it may be killed at any time. */
    private static final class Kept extends H2Backend {
        private final boolean inFile;

        Kept(MVStore store) {
            super(store);
            inFile = store.getFileStore() != null;
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document answer = super.handleMessage(message);
            if (inFile && message.getDocument().keySet().stream().anyMatch(WRITING::contains)) {
                commit();
            }
            return answer;
        }
    }

    private static final List<String> WRITING =
            List.of("insert", "update", "delete", "findAndModify", "create", "createIndexes", "drop", "dropDatabase");

    public static void main(String[] arguments) {
        MVStore.Builder store = new MVStore.Builder().autoCommitDisabled();
        H2Backend backend = new Kept((arguments.length > 1 ? store.fileName(arguments[1]) : store).open());
        backend.version(Said.MONGO_5_0);
        MongoServer server = new MongoServer(backend);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    }
}
