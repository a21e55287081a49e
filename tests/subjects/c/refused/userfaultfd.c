/*
 * A userfaultfd that cannot be captured: refused by name. It is not set up yet, or, as the argument says: outside: the
 * memory is served by a process elsewhere; unmapping: the program would have to hear of our own doing; two: which memory
 * belongs to which; shared: memory that others have, too; child: a child has the descriptor; stack: a thread lives there.
 */
#include "../subject.h"
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
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
            uint64_t page = message.arg.pagefault.address & ~(PAGE - 1ull);
            struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)content, .len = PAGE};
            ioctl(fd, UFFDIO_COPY, &copy);
        }
    _exit(0);
}

static int fd;

static char *reserve(int where)
{
    int memfd = where == MAP_SHARED ? (int)MUST(memfd_create("served", 0)) : -1;
    if (memfd >= 0)
        MUST(ftruncate(memfd, 16 * PAGE));
    return MUST_MAP(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, where | (memfd < 0 ? MAP_ANONYMOUS : 0), memfd, 0));
}

static void hand_over(char *area)
{
    struct uffdio_register what = {.range = {(uintptr_t)area, 16 * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    MUST(ioctl(fd, UFFDIO_REGISTER, &what));
}

static void *live(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void serve_elsewhere(char *area)
{
    int ends[2];
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
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *how = argc > 2 ? argv[2] : "";
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */);
    if (fd < 0)
        subject_skip("userfaultfd");
    bool unmapping = strcmp(how, "unmapping") == 0, stack = strcmp(how, "stack") == 0;
    if (*how)
        MUST(ioctl(fd, UFFDIO_API,
                   &(struct uffdio_api){.api = UFFD_API, .features = unmapping ? UFFD_FEATURE_EVENT_UNMAP : 0}));
    char *area = reserve(strcmp(how, "shared") == 0 ? MAP_SHARED : MAP_PRIVATE);
    if (stack) {
        memset(area, 1, 16 * PAGE);
        pthread_attr_t where;
        pthread_t thread;
        MUST0(pthread_attr_init(&where));
        MUST0(pthread_attr_setstack(&where, area, 16 * PAGE));
        MUST0(pthread_create(&thread, &where, live, NULL));
        subject_all_asleep(1);
    }
    if (*how && !unmapping)
        hand_over(area);
    if (strcmp(how, "two") == 0)
        MUST(ioctl((int)MUST(syscall(SYS_userfaultfd, 1)), UFFDIO_API, &(struct uffdio_api){.api = UFFD_API}));
    pid_t child = strcmp(how, "child") == 0 ? (pid_t)MUST(fork()) : 1;
    if (child == 0)
        live(NULL);
    if (strcmp(how, "outside") == 0)
        serve_elsewhere(area);
    subject_wait(NULL);
    if (child > 1)
        kill(child, SIGKILL);
    EXPECT(strcmp(how, "outside") || (area[0] == 7 && area[PAGE] == 7), "nobody serves any more");
    subject_pass();
}
