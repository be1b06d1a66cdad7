// java -cp LIBRARIES Tomcat.java PORT: a servlet for each handler, as Spring and plain Java web apps have them.

import jakarta.servlet.http.*;
import java.io.IOException;
import java.nio.file.Files;
import java.util.*;

public class Tomcat {
    static final List<String> HANDLERS = List.of(System.getenv("HANDLERS").split(","));

    record Servlet(String path) {
        HttpServlet make() {
            return new HttpServlet() {
                @Override
                protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
                    String uri = request.getRequestURI();
                    int cut = uri.indexOf(';');
                    Map<String, String> ways = new LinkedHashMap<>();
                    ways.put("requestURI", uri);
                    ways.put("requestURI-cut", cut < 0 ? uri : uri.substring(0, cut));
                    ways.put("pathInfo", String.valueOf(request.getPathInfo()));
                    ways.put("servletPath", request.getServletPath());
                    StringBuilder found = new StringBuilder("servlet=" + path);
                    ways.forEach((way, read) ->
                        found.append(" " + way + "=" + (HANDLERS.contains(read) ? read : "-")));
                    response.getOutputStream().print(found.toString());
                }
            };
        }
    }

    public static void main(String[] arguments) throws Exception {
        var tomcat = new org.apache.catalina.startup.Tomcat();
        String folder = Files.createTempDirectory("tomcat").toString();
        tomcat.setBaseDir(folder);
        tomcat.setSilent(true);
        var connector = tomcat.getConnector();
        connector.setPort(Integer.parseInt(arguments[0]));
        connector.setProperty("address", "127.0.0.1");
        connector.setProperty("relaxedPathChars", "\\|^{}[]<>\"`");
        connector.setProperty("maxKeepAliveRequests", "-1");
        connector.setEncodedSolidusHandling("decode");
        connector.setAllowBackslash(true);
        var context = tomcat.addContext("", folder);
        int number = 0;
        for (String handler : HANDLERS) {
            String name = "h" + number++;
            org.apache.catalina.startup.Tomcat.addServlet(context, name, new Servlet(handler).make());
            context.addServletMappingDecoded(handler.equals("/") ? "" : handler, name);
        }
        org.apache.catalina.startup.Tomcat.addServlet(context, "other", new Servlet("-").make());
        context.addServletMappingDecoded("/", "other");
        tomcat.start();
        tomcat.getServer().await();
    }
}
