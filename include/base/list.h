/* Layer: base. Intrusive doubly linked list.
 *
 * A node is embedded in the object it links, so putting an object on a list never allocates and
 * never fails. A node is on at most one list; an unlinked node points to itself, which is how
 * list_is_linked() answers without knowing the list. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/check.h"

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *prev;
    struct list_node *next;
};

/** A list head is a node that carries no object. Must be initialised before any other call. */
static inline void list_init(struct list_node *node)
{
    node->prev = node;
    node->next = node;
}

/** True when the list headed by `head` has no member. */
static inline bool list_is_empty(const struct list_node *head)
{
    return head->next == head;
}

/** True when `node` is a member of some list. */
static inline bool list_is_linked(const struct list_node *node)
{
    return node->next != node;
}

/** Appends `node`, which must be on no list, behind the last member of `head`. */
static inline void list_push_back(struct list_node *head, struct list_node *node)
{
    CHECK(!list_is_linked(node));
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/** Takes `node` off its list; a node that is on none is left as it is. */
static inline void list_remove(struct list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/** Takes the first member off `head`; NULL when there is none. */
static inline struct list_node *list_pop_front(struct list_node *head)
{
    struct list_node *node = head->next;

    if (node == head) {
        return NULL;
    }
    list_remove(node);
    return node;
}

/** Moves all members of `from` behind the last one of `to`, another list; `from` is empty then. */
static inline void list_splice_back(struct list_node *to, struct list_node *from)
{
    CHECK(to != from);
    if (list_is_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    list_init(from);
}

#endif
