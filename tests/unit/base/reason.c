/* Tests of the texts that log, metrics and manual share. */
#include "base/reason.h"
#include "base/macros.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <signal.h>
#include <string.h>

/* The documented list, in the order of the enum: position and text are an interface
 * (metrics layout, dashboards), so the test has its own copy, with the manner beside it. */
static const struct {
    enum reason reason;
    const char *text;
    enum how how;
} designed[] = {
    {REASON_CLIENT_FIN, "client-fin", HOW_FIN},
    {REASON_SERVER_FIN, "server-fin", HOW_FIN},
    {REASON_CLIENT_RESET, "client-reset", HOW_RST},
    {REASON_SERVER_RESET, "server-reset", HOW_RST},
    {REASON_CLIENT_ABORT, "client-abort", HOW_RST},
    {REASON_CONNECT_REFUSED, "connect-refused", HOW_ERROR},
    {REASON_CONNECT_TIMEOUT, "connect-timeout", HOW_TIMEOUT},
    {REASON_CONNECT_UNREACHABLE, "connect-unreachable", HOW_ERROR},
    {REASON_NO_SERVER, "no-server", HOW_ERROR},
    {REASON_NO_PORT, "no-port", HOW_ERROR},
    {REASON_IDLE_TIMEOUT, "idle-timeout", HOW_TIMEOUT},
    {REASON_FIN_TIMEOUT, "fin-timeout", HOW_TIMEOUT},
    {REASON_PEER_TIMEOUT, "peer-timeout", HOW_TIMEOUT},
    {REASON_DENIED, "denied", HOW_ERROR},
    {REASON_LIMIT, "limit", HOW_ERROR},
    {REASON_DRAIN, "drain", HOW_ADMIN},
    {REASON_ADMIN, "admin", HOW_ADMIN},
    {REASON_PROXY_HEADER, "proxy-header", HOW_ERROR},
    {REASON_INTERNAL, "internal", HOW_ERROR},
};

/* ^[a-z-]+$, with a letter at either end: a label value that needs no escaping anywhere. */
static void assert_label(const char *text)
{
    size_t len = strlen(text);

    cr_assert(len > 0);
    cr_assert(strspn(text, "abcdefghijklmnopqrstuvwxyz-") == len, "'%s'", text);
    cr_assert(text[0] != '-', "'%s'", text);
    cr_assert(text[len - 1] != '-', "'%s'", text);
}

/* The reasons are those of the design, no more and no fewer, each at its place: row by row. */
Test(reason, has_exactly_the_texts_of_the_design_in_order)
{
    cr_assert(ARRAY_LEN(designed) == REASON_COUNT);
    for (size_t i = 0; i < ARRAY_LEN(designed); i++) {
        cr_assert((size_t)designed[i].reason == i, "row %zu is out of order", i);
        cr_assert_str_eq(reason_text((enum reason)i), designed[i].text);
    }
}

/* A text becomes a metric label and a word of the log: every one is made of a-z and '-'. */
Test(reason, texts_are_lower_case_words)
{
    for (size_t i = 0; i < REASON_COUNT; i++) {
        assert_label(reason_text((enum reason)i));
    }
    for (size_t i = 0; i < CLOSED_BY_COUNT; i++) {
        assert_label(closed_by_text((enum closed_by)i));
    }
    for (size_t i = 0; i < HOW_COUNT; i++) {
        assert_label(how_text((enum how)i));
    }
}

/* Two reasons with one text could not be told apart in a record: all pairs are compared. */
Test(reason, texts_are_unique)
{
    for (size_t i = 0; i < REASON_COUNT; i++) {
        for (size_t j = 0; j < i; j++) {
            cr_assert_str_neq(reason_text((enum reason)i), reason_text((enum reason)j));
        }
    }
}

/* The manner follows from the reason, so that the two fields of a record never contradict each
 * other: the designed manner, row by row. */
Test(reason, implies_the_manner_of_the_end)
{
    for (size_t i = 0; i < ARRAY_LEN(designed); i++) {
        cr_assert(reason_how(designed[i].reason) == designed[i].how, "%s", designed[i].text);
    }
}

/* What a reader concludes from the name must hold: *-timeout, *-fin and *-reset imply timeout, fin
 * and rst, found by the text's ending. */
Test(reason, manner_agrees_with_the_word_in_the_text)
{
    static const struct {
        const char *ending;
        const char *how;
    } rules[] = {{"-timeout", "timeout"}, {"-fin", "fin"}, {"-reset", "rst"}};

    for (size_t i = 0; i < REASON_COUNT; i++) {
        const char *text = reason_text((enum reason)i);

        for (size_t j = 0; j < ARRAY_LEN(rules); j++) {
            size_t ending_len = strlen(rules[j].ending);

            if (strlen(text) >= ending_len &&
                strcmp(text + strlen(text) - ending_len, rules[j].ending) == 0) {
                cr_assert_str_eq(how_text(reason_how((enum reason)i)), rules[j].how);
            }
        }
    }
}

/* The words for party and manner are the ones that the design gives for closed_by and how. */
Test(reason, party_and_manner_have_the_words_of_the_design)
{
    cr_assert_str_eq(closed_by_text(CLOSED_BY_CLIENT), "client");
    cr_assert_str_eq(closed_by_text(CLOSED_BY_SERVER), "server");
    cr_assert_str_eq(closed_by_text(CLOSED_BY_PROXY), "proxy");
    cr_assert_str_eq(how_text(HOW_FIN), "fin");
    cr_assert_str_eq(how_text(HOW_RST), "rst");
    cr_assert_str_eq(how_text(HOW_TIMEOUT), "timeout");
    cr_assert_str_eq(how_text(HOW_ERROR), "error");
    cr_assert_str_eq(how_text(HOW_ADMIN), "admin");
}

/* A value outside the enum is a bug and must not read past the table: it aborts. */
Test(reason, text_aborts_on_a_value_outside_the_enum, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    (void)reason_text(REASON_COUNT);
}

/* As above, for the manner of a reason. */
Test(reason, how_aborts_on_a_value_outside_the_enum, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    (void)reason_how(REASON_COUNT);
}

/* As above, for the party's word. */
Test(reason, party_aborts_on_a_value_outside_the_enum, .init = cr_redirect_stderr,
     .signal = SIGABRT)
{
    (void)closed_by_text(CLOSED_BY_COUNT);
}

/* As above, for the manner's word. */
Test(reason, manner_aborts_on_a_value_outside_the_enum, .init = cr_redirect_stderr,
     .signal = SIGABRT)
{
    (void)how_text(HOW_COUNT);
}
