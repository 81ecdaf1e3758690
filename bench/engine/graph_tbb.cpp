// oneTBB's flow graph on the graphs of graph_mxrt.c; it runs all nodes each time.
#include <oneapi/tbb/flow_graph.h>
#include <oneapi/tbb/global_control.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

using namespace oneapi::tbb;

int main(int argc, char **argv) {
    if (argc < 5)
        return 2;
    int threads = atoi(argv[2]), count = atoi(argv[3]), rounds = atoi(argv[4]);
    global_control limit(global_control::max_allowed_parallelism, (size_t)threads);
    flow::graph g;
    flow::broadcast_node<flow::continue_msg> input(g);
    std::deque<flow::continue_node<flow::continue_msg>> nodes;
    srand(1);
    auto edge = [&](int from, int to) {
        if (from == 0)
            flow::make_edge(input, nodes[(size_t)to]);
        else
            flow::make_edge(nodes[(size_t)from - 1], nodes[(size_t)to]);
    };
    for (int i = 0; i < count; i++) {
        nodes.emplace_back(g, [](const flow::continue_msg &m) { return m; });
        if (strcmp(argv[1], "random") == 0) {
            int window = i < 100 ? i + 1 : 100, a = i - rand() % window, b = i - rand() % window;
            edge(a, i);
            if (a != b)
                edge(b, i);
        } else {
            edge(i, i);
        }
    }
    for (int round = 0; round <= rounds; round++) {
        auto from = std::chrono::steady_clock::now();
        input.try_put(flow::continue_msg());
        g.wait_for_all();
        std::chrono::duration<double> d = std::chrono::steady_clock::now() - from;
        if (round > 0)
            printf("%.2f\n", d.count() / count * 1e9);
    }
}
