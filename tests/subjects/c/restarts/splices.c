/* Threads that wait in splice, tee and vmsplice. */
#include "blocked.h"
#include <sys/uio.h>

static int from[2], to[2], original[2], copy[2], full[2];
static char space[1 << 17], text[16];

static long by_splice(void) { return splice(from[0], NULL, to[1], NULL, 100, 0); }
static void wake_splice(void) { MUST(write(from[1], "12345", 5)); }
static long by_tee(void) { return tee(original[0], copy[1], 100, 0); }
static void wake_tee(void) { MUST(write(original[1], "abc", 3)); }
static long by_vmsplice(void) { return vmsplice(full[1], &(struct iovec){"given", 5}, 1, 0); }
static void wake_vmsplice(void) { MUST(read(full[0], space, sizeof space)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(pipe(from));
    MUST(pipe(to));
    MUST(pipe(original));
    MUST(pipe(copy));
    MUST(pipe(full));
    MUST(write(full[1], space, 65536));
    struct blocked all[] = {WAITS("splice", splice, 5), WAITS("tee", tee, 3), WAITS("vmsplice", vmsplice, 5)};
    BLOCKED_THROUGH(all);
    EXPECT(read(to[0], text, sizeof text) == 5 && memcmp(text, "12345", 5) == 0, "spliced: %.5s", text);
    EXPECT(read(original[0], text, sizeof text) == 3, "what was copied is gone");
    EXPECT(read(copy[0], text, sizeof text) == 3 && memcmp(text, "abc", 3) == 0, "copied: %.3s", text);
    EXPECT(read(full[0], text, sizeof text) == 5 && memcmp(text, "given", 5) == 0, "given: %.5s", text);
    subject_pass();
}
