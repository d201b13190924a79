/*
 * load: what wrk cannot do: streams, messages by a timetable, idle connections, short connections.
 *
 * wrk puts HTTP requests on a forwarder as fast as they are answered. That leaves out what a
 * forwarder of TCP is for, and it measures latency only at full load and only of requests that it
 * got round to send. The four modes of this program fill the gap; each runs against a raw service
 * of origin:
 *
 *   mode       service          question                            source
 *   bulk       sink, source     how many bytes a second             load_bulk.c
 *   pingpong   echo             latency at a given rate             load_pingpong.c
 *   idle       echo             what does a standing one cost       load_idle.c
 *   churn      echo             how many connections a second       load_churn.c
 *
 * below them load_pass (open, ping and close all of them), load_exchange (a message and its echo),
 * load_loop (epoll, turns, silence), load_target (addresses), load_errors, histogram.
 *
 * It is one process with one thread, so that it uses one processor and the rest is for the program
 * that is measured. A run that needs more load starts more of it.
 *
 * All modes: connections stand before the clock starts (but for churn, whose connections are the
 * measurement); if one cannot be opened, nothing is measured (but idle goes on with the others).
 * Every wait has an end: a peer that owes something and is silent for 10 s is an error, and its
 * connection is closed. The first TERM or INT ends the measurement, brings the connections to an
 * end and prints the result of the time that there was; the second one does not wait for the peers.
 *
 * Exit status: 0, 1 if a connection failed (the JSON says how many, why, and the first in words; so
 * does stderr), 2 for wrong usage.
 *
 * What it does not do: HTTP, TLS, names, unix sockets, results for people.
 */
#include "load_bulk.h"
#include "load_churn.h"
#include "load_idle.h"
#include "load_options.h"
#include "load_pingpong.h"

int main(int argc, char **argv)
{
    static struct load_options options; /* 64 targets are much for a stack */
    int refused = load_options_parse(argc, argv, &options);

    if (refused != 0) {
        return refused - 1;
    }
    switch (options.mode) {
    case LOAD_BULK:
        return load_bulk_run(&options);
    case LOAD_PINGPONG:
        return load_pingpong_run(&options);
    case LOAD_IDLE:
        return load_idle_run(&options);
    case LOAD_CHURN:
        return load_churn_run(&options);
    case LOAD_MODES:
        break;
    }
    return 2;
}
