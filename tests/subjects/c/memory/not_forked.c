/* Memory that a fork leaves out (MADV_DONTFORK) or wipes (MADV_WIPEONFORK): an image holds it all the same. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/wait.h>

#define SIZE ((size_t)1 << 20)
static char *areas[2];
static void spoil(void) { memset(areas[0], 0, SIZE), memset(areas[1], 0, SIZE); }

int main(int argc, char **argv)
{
    const int advice[2] = {MADV_DONTFORK, MADV_WIPEONFORK};
    subject_begin(argc, argv);
    for (int i = 0; i < 2; i++) {
        areas[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(areas[i] != MAP_FAILED, "mmap");
        subject_fill(areas[i], SIZE, (uint64_t)i);
        EXPECT(madvise(areas[i], SIZE, advice[i]) == 0, "madvise %d", advice[i]);
    }
    subject_wait(spoil);
    for (int i = 0; i < 2; i++)
        EXPECT_FILLED(areas[i], SIZE, (uint64_t)i, i ? "what a fork wipes" : "what a fork leaves out");
    pid_t child = fork(); /* the advice itself is still in force */
    if (child == 0)
        _exit(areas[1][0] != 0 || areas[1][SIZE / 2] != 0);
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a fork is not wiped any more");
    subject_pass();
}
