/*
 * Memory whose page faults the program itself serves (userfaultfd): what is missing is missing, what is the zero page is
 * so, what is protected is so; a thread that waits in a fault waits again. kernel: faults in system calls are served, too.
 */
#include "../subject.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096, PAGES = 1024, GUARDED = 64 };
static char *area, *guarded;
static int fd, epoll;
static volatile int served, released, touched;
static uint64_t before[PAGES + GUARDED];

/* Which pages are there, and which are protected. */
static void look(uint64_t *words)
{
    int pagemap = (int)MUST(open("/proc/self/pagemap", O_RDONLY));
    MUST(pread(pagemap, words, PAGES * 8, (off_t)((uintptr_t)area / PAGE * 8)));
    MUST(pread(pagemap, words + PAGES, GUARDED * 8, (off_t)((uintptr_t)guarded / PAGE * 8)));
    for (int i = 0; i < PAGES + GUARDED; i++)
        words[i] &= 1ull << 63 | 1ull << 62 | 1ull << 57;
    close(pagemap);
}

static void put(char *page, int seed)
{
    static char content[PAGE] __attribute__((aligned(PAGE)));
    subject_fill(content, PAGE, (uint64_t)seed);
    struct uffdio_copy copy = {.dst = (uintptr_t)page, .src = (uintptr_t)content, .len = PAGE};
    EXPECT(ioctl(fd, UFFDIO_COPY, &copy) == 0 || errno == EEXIST, "UFFDIO_COPY: %s", strerror(errno));
    if (errno == EEXIST)
        ioctl(fd, UFFDIO_WAKE, &(struct uffdio_range){(uintptr_t)page, PAGE});
}

static void protect(char *page, bool on)
{
    struct uffdio_writeprotect what = {.range = {(uintptr_t)page, PAGE}, .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
    MUST(ioctl(fd, UFFDIO_WRITEPROTECT, &what));
}

static void *serve(void *unused)
{
    struct uffd_msg message;
    struct epoll_event event;
    while (epoll_wait(epoll, &event, 1, -1) == 1 || errno == EINTR) {
        while (!released && served)
            subject_tick(); /* the second fault waits for the word */
        if (read(fd, &message, sizeof message) != sizeof message)
            continue;
        served++;
        char *page = (char *)(uintptr_t)(message.arg.pagefault.address & ~(PAGE - 1ull));
        if (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
            protect(page, false);
        else
            put(page, (int)((page - area) / PAGE));
    }
    return unused;
}

static void *touch(void *place)
{
    touched += *(volatile char *)place + 1000;
    return NULL;
}

static void spoil(void) { madvise(area, PAGES * PAGE, MADV_DONTNEED); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool in_calls = argc > 2;
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | (in_calls ? 0 : UFFD_USER_MODE_ONLY));
    if (fd < 0)
        subject_skip("userfaultfd: %s", strerror(errno));
    MUST(ioctl(fd, UFFDIO_API,
               &(struct uffdio_api){.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID}));
    area = MUST_MAP(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    guarded = MUST_MAP(mmap(NULL, GUARDED * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    madvise(area, PAGES * PAGE, MADV_HUGEPAGE); /* whoever fills a page would fill the missing ones around it */
    subject_fill(guarded, GUARDED / 2 * PAGE, 77);
    struct uffdio_register missing = {.range = {(uintptr_t)area, PAGES * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_register protected = {.range = {(uintptr_t)guarded, GUARDED * PAGE}, .mode = UFFDIO_REGISTER_MODE_WP};
    MUST(ioctl(fd, UFFDIO_REGISTER, &missing));
    MUST(ioctl(fd, UFFDIO_REGISTER, &protected));
    for (int i = 0; i < PAGES; i += 3)
        put(area + i * PAGE, i);
    struct uffdio_zeropage zero = {.range = {(uintptr_t)area + 7 * PAGE, PAGE}};
    MUST(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
    for (int i = 0; i < GUARDED / 2; i += 2)
        protect(guarded + i * PAGE, true);
    epoll = (int)MUST(epoll_create1(0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN}));
    pthread_t server, waiter;
    MUST0(pthread_create(&server, NULL, serve, NULL));
    touch(area + PAGE);
    EXPECT(served == 1, "%d served", served);
    MUST0(pthread_create(&waiter, NULL, touch, area + 100 * PAGE));
    subject_all_asleep(2);
    look(before);
    subject_wait(spoil);
    uint64_t after[PAGES + GUARDED];
    look(after);
    for (int i = 0; i < PAGES + GUARDED; i++)
        EXPECT(before[i] == after[i], "page %d is %llx instead of %llx", i, (long long)after[i], (long long)before[i]);
    EXPECT(touched == (int)(char)area[PAGE] + 1000, "the fault that waited was not waited for");
    released = 1;
    MUST0(pthread_join(waiter, NULL));
    EXPECT(area[7 * PAGE] == 0, "the zero page");
    for (int i = 0; i < PAGES; i++)
        if (i != 7)
            EXPECT_FILLED(area + i * PAGE, PAGE, (uint64_t)i, "a page");
    int so_far = served, calls = (int)MUST(open("/dev/zero", O_RDONLY));
    EXPECT_FILLED(guarded, GUARDED / 2 * PAGE, 77, "what is protected");
    for (int i = 0; i < GUARDED / 2; i++)
        guarded[i * PAGE]++;
    EXPECT(served == so_far + GUARDED / 4, "%d writes were told", served - so_far);
    MUST(madvise(area, PAGE, MADV_DONTNEED));
    long got = read(calls, area, 1);
    EXPECT(in_calls ? got == 1 : got == -1 && errno == EFAULT, "a fault in a system call: %ld, %s", got, strerror(errno));
    subject_pass();
}
