/* A mapping longer than its file: within the last page zeros, behind it SIGBUS. */
#include "../subject.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf back;
static void fault(int number) { siglongjmp(back, number); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = fault};
    MUST(sigaction(SIGBUS, &act, NULL));
    static char content[5000];
    subject_fill(content, sizeof content, 4);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, content, sizeof content));
    for (int shared = 0; shared < 2; shared++) {
        char *area = MUST_MAP(mmap(NULL, 65536, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, fd, 0));
        area[0] = 'm';
        if (shared)
            subject_wait(NULL);
        EXPECT(area[0] == 'm' && memcmp(area + 1, content + 1, sizeof content - 1) == 0, "the content differs");
        EXPECT(area[5500] == 0, "behind the end of the file is %d", area[5500]);
        int signal_seen = sigsetjmp(back, 1);
        if (!signal_seen) {
            area[20000] = 1;
            subject_fail("a page behind the end of the file can be written to");
        }
        EXPECT(signal_seen == SIGBUS, "signal %d", signal_seen);
    }
    subject_pass();
}
