import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonFactoryBuilder;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.io.SerializedString;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The sequence job on Kafka Streams, with one stream thread.
 *
 * <p>Arguments: the task as JSON, and the processing guarantee ({@code at_least_once} or {@code exactly_once_v2}).
 * The variant {@code each} is a processor with a store; {@code latest} is an aggregation whose store's cache forwards
 * the newest state of a user at each commit, or when the cache is full, always before the offsets are committed.
 *
 * <p>One thread runs everything here that has state, so nothing is locked. RocksDB has the settings that Kafka Streams
 * gives it; larger write buffers made no difference.
 */
public final class SequenceJob {
    static final String STORE = "histories";

    /** Items kept of each user. */
    static final int HISTORY_EVENTS = 50;

    /** Far more than the last flush and commit take. */
    static final Duration CLOSE_WITHIN = Duration.ofSeconds(30);

    /** Bounds all stores' caches together; 64 MiB took a tenth more core seconds at a million skewed users. */
    static final long STORE_CACHE_BYTES = 256L << 20;

    /** A poll of 5,000 events, and room for two per partition; the defaults of 1,000 took a little more. */
    static final int MAX_POLL_RECORDS = 5_000;

    static final int BUFFERED_RECORDS = 2 * MAX_POLL_RECORDS;

    /** A fetch brings one poll's worth from a single partition, and more. */
    static final int MAX_PARTITION_FETCH_BYTES = 4 << 20;

    /** Full batches go out at once, others when the linger is over (Streams' own 100 ms) or at a commit. */
    static final int PRODUCER_BATCH_BYTES = 1 << 20;

    /** Eight partitions (outputs and changelog) with several batches under way each. */
    static final int PRODUCER_BUFFER_BYTES = 128 << 20;

    private SequenceJob() {}

    /** Runs until SIGTERM; the exit status is 1 if the job failed. */
    public static void main(String[] args) throws InterruptedException, IOException {
        Map<String, String> task = readTask(args[0]);
        KafkaStreams streams = new KafkaStreams(topology(task), settings(task, args[1]));
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
        streams.setStateListener(
                (now, before) -> {
                    if (now == KafkaStreams.State.ERROR) {
                        failed.countDown();
                    }
                });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(streams)));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static void close(KafkaStreams streams) {
        if (!streams.close(CLOSE_WITHIN)) {
            System.err.println("Kafka Streams did not close within " + CLOSE_WITHIN.toSeconds() + " s.");
        }
    }

    /** The fields of a flat JSON object, as text. */
    static Map<String, String> readTask(String json) throws IOException {
        Map<String, String> fields = new HashMap<>();
        try (JsonParser parser = new JsonFactory().createParser(json)) {
            parser.nextToken();
            for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
                parser.nextToken();
                fields.put(name, parser.getText());
            }
        }
        return fields;
    }

    static Properties settings(Map<String, String> task, String guarantee) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, task.get("group"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, task.get("servers"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, task.get("folder"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, guarantee);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(
                StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Math.round(1000 * Double.parseDouble(task.get("commit_s"))));
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, STORE_CACHE_BYTES);
        settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, BUFFERED_RECORDS);
        consumer(settings, ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        consumer(settings, ConsumerConfig.MAX_POLL_RECORDS_CONFIG, MAX_POLL_RECORDS);
        consumer(settings, ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, MAX_PARTITION_FETCH_BYTES);
        producer(settings, ProducerConfig.ACKS_CONFIG, "all");
        producer(settings, ProducerConfig.BATCH_SIZE_CONFIG, PRODUCER_BATCH_BYTES);
        producer(settings, ProducerConfig.BUFFER_MEMORY_CONFIG, PRODUCER_BUFFER_BYTES);
        return settings;
    }

    private static void consumer(Properties settings, String name, Object value) {
        settings.put(StreamsConfig.consumerPrefix(name), value);
    }

    private static void producer(Properties settings, String name, Object value) {
        settings.put(StreamsConfig.producerPrefix(name), value);
    }

    static Topology topology(Map<String, String> task) {
        return task.get("variant").equals("latest") ? latest(task) : each(task);
    }

    private static Topology each(Map<String, String> task) {
        Serde<byte[]> bytes = Serdes.ByteArray();
        return new Topology()
                .addSource("events", bytes.deserializer(), bytes.deserializer(), task.get("input_topic"))
                .addProcessor("add", EachProcessor::new, "events")
                .addStateStore(
                        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), bytes, bytes)
                                .withCachingEnabled(),
                        "add")
                .addSink("outputs", task.get("output_topic"), bytes.serializer(), bytes.serializer(), "add");
    }

    private static Topology latest(Map<String, String> task) {
        Serde<byte[]> bytes = Serdes.ByteArray();
        Codec codec = new Codec();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(task.get("input_topic"), Consumed.with(bytes, bytes))
                .groupByKey()
                .aggregate(
                        () -> History.EMPTY,
                        (key, event, history) -> History.add(history, codec.readItem(event)),
                        Materialized.<byte[], byte[], KeyValueStore<Bytes, byte[]>>as(STORE)
                                .withKeySerde(bytes)
                                .withValueSerde(bytes)
                                .withCachingEnabled())
                .toStream()
                .mapValues((key, history) -> codec.writeOutput(key, history))
                .to(task.get("output_topic"), Produced.with(bytes, bytes));
        return builder.build();
    }

    /** Adds each event to its user's history, and forwards what came of it. */
    static final class EachProcessor extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
        private final Codec codec = new Codec();
        private KeyValueStore<byte[], byte[]> histories;

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            super.init(context);
            histories = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> event) {
            byte[] before = histories.get(event.key());
            byte[] history = History.add(before == null ? History.EMPTY : before, codec.readItem(event.value()));
            histories.put(event.key(), history);
            context().forward(event.withValue(codec.writeOutput(event.key(), history)));
        }
    }

    /** A user's state as bytes: the number of events (4 bytes, big-endian), then the items, each ended by a newline. */
    static final class History {
        static final byte[] EMPTY = new byte[Integer.BYTES];
        private static final byte END = '\n';

        private History() {}

        static int numEvents(byte[] history) {
            return ByteBuffer.wrap(history).getInt();
        }

        /** The history after one more event, as a new array. */
        static byte[] add(byte[] history, String item) {
            byte[] added = item.getBytes(StandardCharsets.UTF_8);
            int count = numEvents(history);
            int start = count < HISTORY_EVENTS ? Integer.BYTES : endOfOldest(history) + 1;
            return ByteBuffer.allocate(Integer.BYTES + history.length - start + added.length + 1)
                    .putInt(count + 1)
                    .put(history, start, history.length - start)
                    .put(added)
                    .put(END)
                    .array();
        }

        /** Where the newline after the oldest item is. */
        static int endOfOldest(byte[] history) {
            int end = Integer.BYTES;
            while (history[end] != END) {
                end++;
            }
            return end;
        }

        /** Where the newest item begins; it ends before the last byte. */
        static int startOfNewest(byte[] history) {
            int start = history.length - 1;
            while (start > Integer.BYTES && history[start - 1] != END) {
                start--;
            }
            return start;
        }
    }

    /** Reads events and writes outputs, by Jackson's streaming interface. */
    static final class Codec {
        private static final SerializedString USER_ID = new SerializedString("user_id");
        private static final SerializedString NUM_EVENTS = new SerializedString("num_events");
        private static final SerializedString ITEM_ID = new SerializedString("item_id");
        private static final SerializedString OLDEST_ITEM_ID = new SerializedString("oldest_item_id");
        private static boolean saidFirst;

        // One generator writes all outputs one after the other, so nothing may stand between them.
        private final JsonFactory factory = new JsonFactoryBuilder().rootValueSeparator("").build();
        private final ByteArrayOutputStream written = new ByteArrayOutputStream();
        private final JsonGenerator generator;

        Codec() {
            try {
                generator = factory.createGenerator(written);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }

        /** The item of an event; the other fields are passed over, the user being the record's key. */
        String readItem(byte[] event) {
            sayFirst();
            String item = null;
            try (JsonParser parser = factory.createParser(event)) {
                parser.nextToken();
                for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
                    JsonToken token = parser.nextToken();
                    if (name.equals("item_id") && token == JsonToken.VALUE_STRING) {
                        item = parser.getText();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            if (item == null) {
                throw new IllegalArgumentException(
                        "An event has no item_id: " + new String(event, StandardCharsets.UTF_8));
            }
            return item;
        }

        byte[] writeOutput(byte[] user, byte[] history) {
            int newest = History.startOfNewest(history);
            try {
                generator.writeStartObject();
                generator.writeFieldName(USER_ID);
                generator.writeUTF8String(user, 0, user.length);
                generator.writeFieldName(NUM_EVENTS);
                generator.writeNumber(History.numEvents(history));
                generator.writeFieldName(ITEM_ID);
                generator.writeUTF8String(history, newest, history.length - 1 - newest);
                generator.writeFieldName(OLDEST_ITEM_ID);
                generator.writeUTF8String(history, Integer.BYTES, History.endOfOldest(history) - Integer.BYTES);
                generator.writeEndObject();
                generator.flush();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            byte[] output = written.toByteArray();
            written.reset();
            return output;
        }

        private static void sayFirst() {
            if (!saidFirst) {
                saidFirst = true;
                System.out.printf(Locale.ROOT, "{\"first\":%.3f}%n", System.currentTimeMillis() / 1000.0);
            }
        }
    }
}
