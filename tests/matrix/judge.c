/* What was seen of a cell against what is expected of it.
 *
 * How many bytes get through follows from where they were when the closer ended ("facts", measured
 * while the worker was frozen): FIN lets everything arrive that was ever sent; a reset throws away
 * what its own kernel had not sent yet; bytes that reached sluice's kernel get through, except those
 * that nobody takes. */
#include "matrix/run.h"

#include "support/ends.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMPLAINTS_SHOWN = 12, COMPLAINTS_BYTES = 8192 };

static char complaints[COMPLAINTS_BYTES];
static size_t complaint_count;

void complain(const struct cell *cell, const char *format, ...)
{
    size_t used = strlen(complaints);
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (complaint_count++ < COMPLAINTS_SHOWN) {
        (void)snprintf(complaints + used, sizeof(complaints) - used,
                       "\n  %s: %s\n    alone: make test-matrix CELL=%s", cell_name(cell), text,
                       cell_name(cell));
    }
}

void expect_no_complaint(void)
{
    cr_assert(complaint_count == 0, "%zu complaints, of which the first are:%s", complaint_count,
              complaints);
}

struct range {
    uint64_t least;
    uint64_t most;
};

static struct range exactly(uint64_t count)
{
    return (struct range){.least = count, .most = count};
}

static void expect_in(const struct run *run, const char *what, uint64_t seen, struct range range)
{
    if (seen < range.least || seen > range.most) {
        complain(&run->cell, "%s: %llu, expected %llu to %llu", what, (unsigned long long)seen,
                 (unsigned long long)range.least, (unsigned long long)range.most);
    }
}

/* Of the bytes of a direction when the closer ended: those in the receiver's kernel or read; those
 * that sluice's socket took; that reached sluice's kernel; that sluice had taken. */
static uint64_t fact_reached(const struct lane *lane)
{
    return lane->fact_read + lane->fact.received;
}

static uint64_t fact_passed(const struct lane *lane)
{
    return fact_reached(lane) + lane->fact.unacked;
}

static uint64_t fact_arrived(const struct lane *lane)
{
    return lane->fact_sent - lane->fact.unsent;
}

static uint64_t fact_taken(const struct lane *lane)
{
    return fact_arrived(lane) - lane->fact.untaken;
}

static bool is_unmet(const struct run *run)
{
    return run->expected.other == VIEW_NONE;
}

static bool ends_by_fin(const struct run *run)
{
    return run->cell.at[KIND] == KIND_FIN || run->cell.at[KIND] == KIND_KILL;
}

static void judge_own(const struct run *run, const struct lane *own)
{
    uint64_t all = ends_by_fin(run) ? own->fact_sent : fact_arrived(own);
    struct range delivered = exactly(is_unmet(run) ? 0 : all);
    struct range passed = delivered;

    if (run->expected.stuck) {
        /* Later the kernel may find room for a little more (it enlarges send buffers). */
        delivered = (struct range){.least = fact_reached(own), .most = all - 1};
        passed = (struct range){.least = fact_passed(own), .most = all - 1};
    }
    expect_in(run, "bytes from the closer that came through", own->read, delivered);
    expect_in(run, "bytes from the closer in the record", run->record.bytes[run->cell.at[FIRST]],
              passed);
}

static bool is_sent_to_a_dead_process(const struct run *run)
{
    return run->cell.at[KIND] == KIND_KILL &&
           cell_moves(&run->cell, other_side((enum side)run->cell.at[FIRST]));
}

static void judge_back(const struct run *run, const struct lane *back)
{
    struct range passed = exactly(fact_passed(back));

    if (run->cell.at[KIND] == KIND_FIN) {
        passed = exactly(back->sent);
        expect_in(run, "bytes to the closer that came through", back->read, passed);
    } else if (is_sent_to_a_dead_process(run)) {
        passed.most = fact_arrived(back); /* until its kernel says RST */
    }
    expect_in(run, "bytes to the closer in the record", run->record.bytes[1 - run->cell.at[FIRST]],
              passed);
}

/* What sluice had taken and the receiver has not. */
static struct range lost_of_stuck(const struct run *run, const struct lane *own)
{
    uint64_t passed = run->record.bytes[run->cell.at[FIRST]];

    if (passed == fact_passed(own)) {
        return exactly(fact_taken(own) - own->read);
    }
    return (struct range){.least = passed - own->read, .most = own->fact_sent - own->read};
}

static void judge_undelivered(const struct run *run, const struct lane *own,
                              const struct lane *back)
{
    struct range lost = exactly(0);

    if (run->expected.stuck) {
        lost = lost_of_stuck(run, own);
    }
    if (is_sent_to_a_dead_process(run)) {
        lost.most += fact_arrived(back) - fact_reached(back);
    } else if (!ends_by_fin(run)) {
        /* What is in sluice's kernel may be taken before the reset is noticed. */
        lost.least += fact_taken(back) - fact_reached(back);
        lost.most += fact_arrived(back) - fact_reached(back);
    }
    expect_in(run, "undelivered_bytes", run->record.undelivered_bytes, lost);
}

static void judge_view(const struct run *run, enum side receiver, enum view expected)
{
    enum view seen = run->lane[other_side(receiver)].view;
    bool right = seen == expected;

    if (cell_is_unix(&run->cell, receiver) && expected != VIEW_NONE) {
        /* A unix socket shows an abnormal end as a reset if bytes from this side were not read, in
         * the place of an end that is not read yet; else as the end of the stream. */
        right = seen == VIEW_FIN || (expected != VIEW_FIN && seen == VIEW_RESET);
    }
    if (!right) {
        complain(&run->cell, "the %s saw %s, expected %s", receiver == CLIENT ? "client" : "server",
                 view_name(seen), view_name(expected));
    }
}

static void judge_text(const struct run *run, const char *key, const char *seen,
                       const char *expected)
{
    if (strcmp(seen, expected != NULL ? expected : "") != 0) {
        complain(&run->cell, "%s=%s, expected \"%s\"", key, seen, expected != NULL ? expected : "");
    }
}

static void judge_splice(const struct run *run)
{
    uint64_t all = run->record.bytes[CLIENT] + run->record.bytes[SERVER];
    struct range spliced = exactly(0);

    if (run->cell.at[ENGINE] == ENGINE_SPLICE && all > 0) {
        spliced = (struct range){.least = 1, .most = all};
    } else if (run->cell.at[ENGINE] == ENGINE_SWITCH && run->cell.at[MOMENT] != MOMENT_CONNECT) {
        spliced = (struct range){.least = 1, .most = all - 1}; /* it has changed, hence both */
    }
    expect_in(run, "spliced_bytes", run->record.spliced_bytes, spliced);
}

void judge(const struct run *run, const struct stand *stand)
{
    const struct record_seen *record = &run->record;
    enum side closer = (enum side)run->cell.at[FIRST];
    const struct lane *own = &run->lane[closer];
    const struct lane *back = &run->lane[other_side(closer)];

    if (own->wrong_at != NO_OFFSET || back->wrong_at != NO_OFFSET) {
        complain(&run->cell, "wrong byte: from the closer at %llu, to it at %llu",
                 (unsigned long long)own->wrong_at, (unsigned long long)back->wrong_at);
    }
    judge_view(run, closer, run->expected.closer);
    judge_view(run, other_side(closer), run->expected.other);
    if (!record->is_there) {
        complain(&run->cell, "no record");
        return;
    }
    judge_text(run, "reason", record->reason, run->expected.reason);
    judge_text(run, "closed_by", record->closed_by, run->expected.closed_by);
    judge_text(run, "how", record->how, run->expected.how);
    judge_text(run, "errno", record->error, run->expected.error);
    judge_own(run, own);
    judge_back(run, back);
    judge_undelivered(run, own, back);
    judge_splice(run);
    if (run->cell.at[SINK] == SINK_PAUSED && cell_is_held(&run->cell, closer) &&
        record->index < stand->early_records) {
        complain(&run->cell, "ended before the reader went on");
    }
}
