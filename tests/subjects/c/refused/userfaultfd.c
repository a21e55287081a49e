/* A userfaultfd: refused by name. outside: so is memory that a process elsewhere serves by one. */
#include "../subject.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PAGE = 4096 };

/* Put a page where one is missing, until the program has ended. */
static void serve(int fd, int programs_end)
{
    static char content[PAGE] __attribute__((aligned(PAGE)));
    struct uffd_msg message;
    memset(content, 7, sizeof content);
    for (char byte; read(programs_end, &byte, 1) < 0 && errno == EAGAIN; subject_tick())
        if (read(fd, &message, sizeof message) == sizeof message) {
            struct uffdio_copy copy = {.dst = message.arg.pagefault.address & ~(PAGE - 1ull), .src = (uintptr_t)content, .len = PAGE};
            ioctl(fd, UFFDIO_COPY, &copy);
        }
    _exit(0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */), ends[2];
    if (fd < 0)
        subject_skip("userfaultfd");
    if (argc < 3) {
        subject_wait(NULL);
        subject_pass();
    }
    MUST(ioctl(fd, UFFDIO_API, &(struct uffdio_api){.api = UFFD_API}));
    volatile char *area = MUST_MAP(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct uffdio_register what = {.range = {(uintptr_t)area, 4 * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    MUST(ioctl(fd, UFFDIO_REGISTER, &what));
    MUST(pipe2(ends, O_NONBLOCK));
    pid_t middle = (pid_t)MUST(fork());
    if (middle == 0) {
        close(ends[1]);
        if (fork() == 0)
            serve(fd, ends[0]);
        _exit(0);
    }
    MUST(waitpid(middle, NULL, 0));
    close(fd), close(ends[0]);
    EXPECT(area[0] == 7, "nobody serves");
    subject_wait(NULL);
    EXPECT(area[0] == 7 && area[PAGE] == 7, "nobody serves any more");
    subject_pass();
}
