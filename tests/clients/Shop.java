import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Stream;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.OrdersApi;
import org.openapitools.client.model.Accepted;
import org.openapitools.client.model.DeliverTo;
import org.openapitools.client.model.Order;
import org.openapitools.client.model.OrderedLine;
import org.openapitools.client.model.PaymentMeans;
import org.openapitools.client.model.PlaceOrder;
import org.openapitools.client.model.PlacedBy;
import org.openapitools.client.model.Reason;

/** A shop's program on the generated client: it places an order, reads, follows and cancels it, and prints what it saw. */
public class Shop {
  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(arguments[0]);
    OrdersApi orders = new OrdersApi(client);
    PlaceOrder wanted = new PlaceOrder()
        .flow("marketplace")
        .customer(new PlacedBy().id("java").name("홍길동"))
        .addLinesItem(new OrderedLine().itemId("2001").name("gram").quantity(1L).unitPrice(5_000_000_000L))
        .currency("KRW")
        .address(new DeliverTo().line("England").region("london"))
        .payment(new PaymentMeans().method("card").token("tok_ok"));
    Accepted placed = orders.placeOrder(wanted, "a-program-in-java", null, null);
    UUID orderId = placed.getOrderId();
    Order read = orders.getOrder(orderId, placed.getPosition(), 10_000, null, null, null);
    long amount = read.getTotal().getAmount();
    Order followed = snapshot(arguments[0], client.getObjectMapper(), orderId);
    Accepted canceled =
        orders.cancelOrder(orderId, null, "wait=20", null, new Reason().reason("changed my mind"));
    Map<String, Object> saw = Map.of(
        "order_id", orderId.toString(),
        "amount", amount,
        "followed", followed.getOrderId().toString(),
        "payment", read.getPayment().getStatus().getValue(),
        "status", canceled.getStatus().getValue());
    System.out.println(new ObjectMapper().writeValueAsString(saw));
    System.exit(0);
  }

  private static Order snapshot(String url, ObjectMapper mapper, UUID orderId) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/orders/" + orderId + "/live")).build();
    HttpResponse<Stream<String>> following =
        HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofLines());
    String data = following.body().filter(line -> line.startsWith("data:")).findFirst().orElseThrow();
    return mapper.readValue(data.substring("data:".length()), Order.class);
  }
}
