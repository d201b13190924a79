/* Tests of the intrusive list: single promises first, then a model test against plain arrays. */
#include "base/list.h"
#include "base/macros.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* A fresh head has no member and a fresh node is on no list: both ask about themselves. */
Test(list, is_empty_after_init)
{
    struct list_node head;
    struct list_node node;

    list_init(&head);
    list_init(&node);
    cr_assert(list_is_empty(&head));
    cr_assert(!list_is_linked(&node));
    cr_assert(list_pop_front(&head) == NULL);
    cr_assert(list_is_empty(&head));
}

/* First in, first out: three nodes pushed come back in the order of pushing, unlinked. */
Test(list, pops_in_the_order_of_pushing)
{
    struct list_node head;
    struct list_node nodes[3];

    list_init(&head);
    for (size_t i = 0; i < 3; i++) {
        list_init(&nodes[i]);
        list_push_back(&head, &nodes[i]);
        cr_assert(list_is_linked(&nodes[i]));
    }
    cr_assert(!list_is_empty(&head));
    for (size_t i = 0; i < 3; i++) {
        cr_assert(list_pop_front(&head) == &nodes[i]);
        cr_assert(!list_is_linked(&nodes[i]));
    }
    cr_assert(list_is_empty(&head));
}

/* Removing is safe twice: a node that is on no list stays as it is, its former list too. */
Test(list, remove_leaves_an_unlinked_node_as_it_is)
{
    struct list_node head;
    struct list_node first;
    struct list_node second;

    list_init(&head);
    list_init(&first);
    list_init(&second);
    list_push_back(&head, &first);
    list_push_back(&head, &second);
    list_remove(&first);
    list_remove(&first);
    cr_assert(!list_is_linked(&first));
    cr_assert(list_pop_front(&head) == &second);
    cr_assert(list_pop_front(&head) == NULL);
}

/* A node alone on its list counts as linked, although its two neighbours are the same: pushed,
 * asked, removed, asked. */
Test(list, knows_that_an_only_member_is_linked)
{
    struct list_node head;
    struct list_node node;

    list_init(&head);
    list_init(&node);
    list_push_back(&head, &node);
    cr_assert(list_is_linked(&node));
    list_remove(&node);
    cr_assert(!list_is_linked(&node));
    cr_assert(list_is_empty(&head));
}

/* Splicing moves all members behind those of the target, for none, one and two on either side. */
Test(list, splice_appends_all_members_in_order)
{
    for (size_t in_to = 0; in_to <= 2; in_to++) {
        for (size_t in_from = 0; in_from <= 2; in_from++) {
            struct list_node to;
            struct list_node from;
            struct list_node nodes[4];

            list_init(&to);
            list_init(&from);
            for (size_t i = 0; i < in_to + in_from; i++) {
                list_init(&nodes[i]);
                list_push_back(i < in_to ? &to : &from, &nodes[i]);
            }
            list_splice_back(&to, &from);
            cr_assert(list_is_empty(&from), "%zu + %zu", in_to, in_from);
            for (size_t i = 0; i < in_to + in_from; i++) {
                cr_assert(list_pop_front(&to) == &nodes[i], "%zu + %zu: %zu", in_to, in_from, i);
            }
            cr_assert(list_is_empty(&to), "%zu + %zu", in_to, in_from);
        }
    }
}

/* A node is on at most one list: pushing it again is a bug and aborts. */
Test(list, push_aborts_when_the_node_is_on_a_list, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct list_node head;
    struct list_node other;
    struct list_node node;

    list_init(&head);
    list_init(&other);
    list_init(&node);
    list_push_back(&head, &node);
    list_push_back(&other, &node);
}

enum { MODEL_LISTS = 4, MODEL_NODES = 24, MODEL_OPERATIONS = 60000 };

/* What the lists should hold: node numbers in order. */
struct model {
    uint64_t seed;
    size_t operation;
    size_t len[MODEL_LISTS];
    int order[MODEL_LISTS][MODEL_NODES];
    struct list_node heads[MODEL_LISTS];
    struct list_node nodes[MODEL_NODES];
};

#define MODEL_ASSERT(model, condition)                                                             \
    cr_assert((condition), "seed %" PRIu64 ", operation %zu: %s", (model)->seed,                   \
              (model)->operation, #condition)

static void model_init(struct model *model, uint64_t seed)
{
    memset(model, 0, sizeof(*model));
    model->seed = seed;
    for (size_t i = 0; i < MODEL_LISTS; i++) {
        list_init(&model->heads[i]);
    }
    for (size_t i = 0; i < MODEL_NODES; i++) {
        list_init(&model->nodes[i]);
    }
}

/* Takes the number of a node out of the list that has it; false when none has. */
static bool model_take_out(struct model *model, int node)
{
    for (size_t list = 0; list < MODEL_LISTS; list++) {
        int *order = model->order[list];

        for (size_t i = 0; i < model->len[list]; i++) {
            if (order[i] == node) {
                memmove(order + i, order + i + 1, (model->len[list] - i - 1) * sizeof(*order));
                model->len[list]--;
                return true;
            }
        }
    }
    return false;
}

static void model_append(struct model *model, size_t list, int node)
{
    model->order[list][model->len[list]++] = node;
}

static void model_check(const struct model *model)
{
    bool linked[MODEL_NODES] = {false};

    for (size_t list = 0; list < MODEL_LISTS; list++) {
        const struct list_node *head = &model->heads[list];
        const struct list_node *at = head;

        MODEL_ASSERT(model, list_is_empty(head) == (model->len[list] == 0));
        for (size_t i = 0; i < model->len[list]; i++) {
            int node = model->order[list][i];

            MODEL_ASSERT(model, at->next == &model->nodes[node]);
            MODEL_ASSERT(model, at->next->prev == at);
            linked[node] = true;
            at = at->next;
        }
        MODEL_ASSERT(model, at->next == head);
        MODEL_ASSERT(model, head->prev == at);
    }
    for (size_t node = 0; node < MODEL_NODES; node++) {
        MODEL_ASSERT(model, list_is_linked(&model->nodes[node]) == linked[node]);
    }
}

static void model_push(struct model *model, size_t list, int node)
{
    if (list_is_linked(&model->nodes[node])) {
        return;
    }
    list_push_back(&model->heads[list], &model->nodes[node]);
    model_append(model, list, node);
}

static void model_pop(struct model *model, size_t list)
{
    struct list_node *popped = list_pop_front(&model->heads[list]);

    if (model->len[list] == 0) {
        MODEL_ASSERT(model, popped == NULL);
        return;
    }
    MODEL_ASSERT(model, popped == &model->nodes[model->order[list][0]]);
    (void)model_take_out(model, model->order[list][0]);
}

static void model_splice(struct model *model, size_t to, size_t from)
{
    if (to == from) {
        return;
    }
    list_splice_back(&model->heads[to], &model->heads[from]);
    for (size_t i = 0; i < model->len[from]; i++) {
        model_append(model, to, model->order[from][i]);
    }
    model->len[from] = 0;
}

static void model_step(struct model *model, uint64_t random)
{
    size_t list = random % MODEL_LISTS;
    size_t other = random / MODEL_LISTS % MODEL_LISTS;
    int node = (int)(random / 64 % MODEL_NODES);
    uint64_t choice = (random >> 32) % 100;

    if (choice < 50) {
        model_push(model, list, node);
    } else if (choice < 75) {
        list_remove(&model->nodes[node]);
        (void)model_take_out(model, node);
    } else if (choice < 95) {
        model_pop(model, list);
    } else {
        model_splice(model, list, other);
    }
}

/* Any sequence of operations leaves the lists as arrays of node numbers say: random operations on
 * four lists, after each of which all links are walked forth and back. */
Test(list, agrees_with_an_array_over_random_operations)
{
    static const uint64_t seeds[] = {1, 20261122};

    for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
        struct model model;
        uint64_t random = seeds[i];

        model_init(&model, seeds[i]);
        for (; model.operation < MODEL_OPERATIONS; model.operation++) {
            model_step(&model, next_random(&random));
            model_check(&model);
        }
    }
}
