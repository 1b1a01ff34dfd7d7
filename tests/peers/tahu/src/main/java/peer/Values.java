package peer;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.eclipse.tahu.message.model.DataSet;
import org.eclipse.tahu.message.model.DataSet.DataSetBuilder;
import org.eclipse.tahu.message.model.DataSetDataType;
import org.eclipse.tahu.message.model.File;
import org.eclipse.tahu.message.model.Metric;
import org.eclipse.tahu.message.model.Metric.MetricBuilder;
import org.eclipse.tahu.message.model.MetricDataType;
import org.eclipse.tahu.message.model.Parameter;
import org.eclipse.tahu.message.model.ParameterDataType;
import org.eclipse.tahu.message.model.PropertyDataType;
import org.eclipse.tahu.message.model.PropertySet;
import org.eclipse.tahu.message.model.PropertyValue;
import org.eclipse.tahu.message.model.Row;
import org.eclipse.tahu.message.model.Row.RowBuilder;
import org.eclipse.tahu.message.model.Template;
import org.eclipse.tahu.message.model.Template.TemplateBuilder;
import org.eclipse.tahu.message.model.Value;

/** Between the JSON of the control port and Tahu's own values. */
final class Values {
    static final ObjectMapper JSON = new ObjectMapper();

    private Values() {}

    static List<Metric> metrics(JsonNode said) throws Exception {
        List<Metric> found = new ArrayList<>();
        for (JsonNode one : said) found.add(metric(one));
        return found;
    }

    static Metric metric(JsonNode said) throws Exception {
        MetricDataType type = (MetricDataType) constant(MetricDataType.class, said.get("type").asText());
        MetricBuilder builder = new MetricBuilder(said.get("name").asText(), type, value(type.getType(), said.get("value")));
        builder.timestamp(said.has("timestamp") ? new Date(said.get("timestamp").asLong()) : new Date());
        if (said.has("isHistorical")) builder.isHistorical(said.get("isHistorical").asBoolean());
        if (said.has("properties")) {
            PropertySet properties = new PropertySet();
            for (Map.Entry<String, JsonNode> one : said.get("properties").properties()) {
                String name = one.getValue().get("type").asText();
                PropertyDataType kind = (PropertyDataType) constant(PropertyDataType.class, name);
                properties.setProperty(one.getKey(), new PropertyValue<>(kind, value(name, one.getValue().get("value"))));
            }
            builder.properties(properties);
        }
        return builder.createMetric();
    }

    /** The type of that name, which each of Tahu's classes of types has as a static field. */
    private static Object constant(Class<?> types, String name) throws ReflectiveOperationException {
        return types.getField(name).get(null);
    }

    private static Object value(String type, JsonNode said) throws Exception {
        if (said == null || said.isNull()) return null;
        if (type.endsWith("Array")) return array(type.substring(0, type.length() - 5), said);
        return switch (type) {
            case "Int8" -> (byte) said.asInt();
            case "Int16", "UInt8" -> (short) said.asInt();
            case "Int32", "UInt16" -> said.asInt();
            case "Int64", "UInt32" -> Long.valueOf(said.asText());
            case "UInt64" -> new BigInteger(said.asText());
            case "Float" -> (float) said.asDouble();
            case "Double" -> said.asDouble();
            case "Boolean" -> said.asBoolean();
            case "DateTime" -> new Date(said.asLong());
            case "Bytes" -> Base64.getDecoder().decode(said.asText());
            case "File" -> new File("curve.bin", Base64.getDecoder().decode(said.asText()));
            case "DataSet" -> table(said);
            case "Template" -> template(said);
            default -> said.asText();
        };
    }

    private static Object array(String type, JsonNode said) throws Exception {
        Class<?> of = ((MetricDataType) constant(MetricDataType.class, type)).getClazz();
        Object[] found = (Object[]) java.lang.reflect.Array.newInstance(of, said.size());
        for (int i = 0; i < found.length; i++) found[i] = value(type, said.get(i));
        return found;
    }

    private static DataSet table(JsonNode said) throws Exception {
        DataSetBuilder builder = new DataSetBuilder(said.get("columns").size());
        for (JsonNode name : said.get("columns")) builder.addColumnName(name.asText());
        for (JsonNode type : said.get("types")) builder.addType((DataSetDataType) constant(DataSetDataType.class, type.asText()));
        for (JsonNode cells : said.get("rows")) {
            RowBuilder row = new RowBuilder();
            for (int i = 0; i < cells.size(); i++) {
                String type = said.get("types").get(i).asText();
                row.addValue(new Value<>((DataSetDataType) constant(DataSetDataType.class, type), value(type, cells.get(i))));
            }
            builder.addRow(row.createRow());
        }
        return builder.createDataSet();
    }

    private static Template template(JsonNode said) throws Exception {
        TemplateBuilder builder = new TemplateBuilder().definition(said.path("isDefinition").asBoolean());
        if (said.has("templateRef")) builder.templateRef(said.get("templateRef").asText());
        if (said.has("version")) builder.version(said.get("version").asText());
        builder.addMetrics(metrics(said.get("metrics")));
        for (JsonNode one : said.path("parameters")) {
            String type = one.get("type").asText();
            ParameterDataType kind = (ParameterDataType) constant(ParameterDataType.class, type);
            builder.addParameter(new Parameter(one.get("name").asText(), kind, value(type, one.get("value"))));
        }
        return builder.createTemplate();
    }

    /** A value of Tahu's as JSON writes it: times as ms, bytes as base64, tables and templates as objects. */
    static Object plain(Object value) {
        if (value instanceof Date date) return date.getTime();
        if (value instanceof byte[] bytes) return Base64.getEncoder().encodeToString(bytes);
        if (value instanceof File file) return Base64.getEncoder().encodeToString(file.getBytes());
        if (value instanceof Object[] items) return java.util.Arrays.stream(items).map(Values::plain).toList();
        if (value instanceof DataSet table) {
            List<Object> rows = new ArrayList<>();
            for (Row row : table.getRows()) rows.add(row.getValues().stream().map(cell -> plain(cell.getValue())).toList());
            return Map.of("columns", table.getColumnNames(), "rows", rows);
        }
        if (value instanceof Template template) return template.toString();
        return value;
    }

    static Map<String, Object> said(String where, Metric metric) {
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("where", where);
        found.put("name", metric.getName());
        found.put("type", metric.getDataType() == null ? null : metric.getDataType().getType());
        found.put("value", plain(metric.getValue()));
        found.put("timestamp", metric.getTimestamp() == null ? null : metric.getTimestamp().getTime());
        found.put("historical", Boolean.TRUE.equals(metric.isHistorical()));
        Map<String, Object> properties = new LinkedHashMap<>();
        if (metric.getProperties() != null) {
            metric.getProperties().getPropertyMap().forEach((key, one) -> properties.put(key, plain(one.getValue())));
        }
        found.put("properties", properties);
        return found;
    }
}
