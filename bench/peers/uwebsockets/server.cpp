// uWebSockets in C++: echo, or every message to all connections by its publish().
#include "App.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

struct Nothing {};

struct Options {
    int port = 9001, backlog = 0;
    unsigned max_size = 64u << 20;
    bool broadcast = false, deflate = false;
    const char *tls = nullptr, *key = nullptr;
};

template <bool SSL> static int serve(uWS::TemplatedApp<SSL> &&app, const Options &options) {
    using Socket = uWS::WebSocket<SSL, true, Nothing>;
    typename uWS::TemplatedApp<SSL>::template WebSocketBehavior<Nothing> behavior;
    // The shared ones are the fastest, and what its own benchmarks take; they keep no context.
    behavior.compression = options.deflate
                               ? uWS::CompressOptions(uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR)
                               : uWS::DISABLED;
    behavior.maxPayloadLength = options.max_size;
    behavior.maxBackpressure = options.max_size;
    behavior.idleTimeout = 0;
    behavior.sendPingsAutomatically = false;
    if (options.broadcast) {
        behavior.open = [](Socket *socket) { socket->subscribe("all"); };
        behavior.message = [&app](Socket *, std::string_view message, uWS::OpCode code) {
            app.publish("all", message, code);
        };
    } else {
        bool deflate = options.deflate;
        behavior.message = [deflate](Socket *socket, std::string_view message, uWS::OpCode code) {
            socket->send(message, code, deflate);
        };
    }
    app.template ws<Nothing>("/*", std::move(behavior)).listen("127.0.0.1", options.port, [](auto *listening) {
        if (listening == nullptr) std::exit(1);
    });
    app.run();
    return 0;
}

int main(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!std::strcmp(argv[i], "--port") && more) options.port = std::atoi(argv[++i]);
        else if (!std::strcmp(argv[i], "--broadcast")) options.broadcast = true;
        else if (!std::strcmp(argv[i], "--deflate")) options.deflate = true;
        else if (!std::strcmp(argv[i], "--tls") && more) options.tls = argv[++i];
        else if (!std::strcmp(argv[i], "--key") && more) options.key = argv[++i];
        else return 2;
    }
    if (options.tls == nullptr) return serve<false>(uWS::App(), options);
    uWS::SocketContextOptions context;
    context.cert_file_name = options.tls;
    context.key_file_name = options.key;
    return serve<true>(uWS::SSLApp(context), options);
}
