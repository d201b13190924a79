/* Fuzzes whole sessions: the simulation of tests/sim, with its choices taken from the input.
 *
 * The simulation plays clients, servers and the network against the real loop, flows, sessions and
 * listeners; tests/sim/judge.c has its rules, J1 to J8. There a seed decides; here the
 * input does, as long as it lasts, and libFuzzer keeps those inputs that reach new code. An input
 * that is used up goes on with the generator, so that every run comes to its end.
 *
 * Most inputs play with small numbers: a run of some KiB shows what one of a MiB does, in a tenth
 * of the time. Only a read that fills a whole buffer, and a spent budget, need more. */
#include "base/macros.h"
#include "fuzz/common/input.h"
#include "sim/kernel.h"
#include "sim/world.h"
#include "support/stream.h"

enum { SMALL = 1 << 13 };

static struct input input;
static uint64_t random_state;
static uint64_t most; /* no choice is above this */

static uint64_t choose(uint64_t bound)
{
    bound = min_u64(bound, most);
    return input.left > 0 ? input_below(&input, bound) : random_below(&random_state, bound);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    input = (struct input){bytes, len};
    most = input_byte(&input) % 16 == 15 ? UINT64_MAX : SMALL;
    random_state = input_below(&input, UINT64_C(1) << 16);
    kernel_choose = choose;
    EXPECT(world_run(1), "%s", kernel.failure);
    return 0;
}
