/* Part of every test program: gives a time limit to the tests that state none.
 *
 * Criterion documents --timeout as the limit of tests without one of their own, but up to 2.4.1 only
 * lowers the limits that tests have (Snaipe/Criterion#279): a test that hangs would hang the suite. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <criterion/internal/ordered-set.h>
#include <criterion/options.h>

/* Criterion keeps each element right behind its node. */
static void *element_of(struct criterion_ordered_set_node *node)
{
    return node + 1;
}

static void limit_tests_of(const struct criterion_suite_set *suite)
{
    if (suite->suite.data != NULL && suite->suite.data->timeout > 0) {
        return;
    }
    for (struct criterion_ordered_set_node *node = suite->tests->first; node; node = node->next) {
        struct criterion_test *test = element_of(node);

        if (test->data->timeout <= 0) {
            test->data->timeout = criterion_options.timeout;
        }
    }
}

ReportHook(PRE_ALL)(struct criterion_test_set *all)
{
    for (struct criterion_ordered_set_node *node = all->suites->first; node; node = node->next) {
        limit_tests_of(element_of(node));
    }
}
