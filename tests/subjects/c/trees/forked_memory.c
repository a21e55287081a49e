/*
 * A tree of processes, each of which has done at random what can be done to memory, before and after its forks. Each must
 * find all its pages as it left them, and no page that is another's as well: argv[2] is the seed, by default another one
 * each time.
 */
#include "tree.h"
#include <sys/mman.h>

enum { REGIONS = 6, PAGES = 48, PAGE = 4096, GONE = -1, DEPTH = 3, RW = PROT_READ | PROT_WRITE };

static struct {
    int processes, ready, compared, marked, proved, wrong;
    char why[200];
} *common; /* shared by all of them */

static char *region[REGIONS];
static int protection[REGIONS][PAGES]; /* or GONE */
static uint64_t digest[REGIONS][PAGES];
static uint64_t seed, state;
static int file;

static unsigned any(unsigned below)
{
    return (unsigned)(subject_mix(state++) % below);
}

static char *page_at(int r, int p)
{
    return region[r] + p * PAGE;
}

static void protect(int r, int p, int wanted)
{
    MUST(mprotect(page_at(r, p), PAGE, wanted));
    protection[r][p] = wanted;
}

static void map_anew(int r, int p, int count, int wanted, int flags, int fd)
{
    off_t offset = fd < 0 ? 0 : (r * PAGES + p) * PAGE;
    MUST(mmap(page_at(r, p), (size_t)count * PAGE, wanted, MAP_PRIVATE | MAP_FIXED | flags, fd, offset));
    for (int i = p; i < p + count; i++)
        protection[r][i] = wanted;
}

/* Where pages of one kind are at `from`, put them at `to`. */
static void move_pages(int r, int from, int to, int count)
{
    if (from + count > PAGES || (from < to + count && to < from + count))
        return;
    for (int i = 0; i < count; i++)
        if (protection[r][from + i] == GONE || protection[r][from + i] != protection[r][from])
            return;
    size_t size = (size_t)count * PAGE;
    if (mremap(page_at(r, from), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(r, to)) == MAP_FAILED) {
        map_anew(r, from, count, RW, MAP_ANONYMOUS, -1); /* they were several mappings, and may have gone in part */
        map_anew(r, to, count, RW, MAP_ANONYMOUS, -1);
        return;
    }
    for (int i = 0; i < count; i++) {
        protection[r][to + i] = protection[r][from + i];
        protection[r][from + i] = GONE;
    }
}

static void advise(int r, int p, int advice)
{
    if (protection[r][p] != GONE)
        madvise(page_at(r, p), PAGE, advice); /* of a file's pages not every advice is taken */
}

static void do_something(void)
{
    static const int protections[] = {PROT_READ, PROT_NONE, RW, RW};
    int r = (int)any(REGIONS), p = (int)any(PAGES), count = 1 + (int)any(12);
    if (p + count > PAGES)
        count = PAGES - p;
    unsigned what = any(14), how = any(4);
    switch (what) {
    case 0:
        if (how == 0) {
            MUST(munmap(page_at(r, p), (size_t)count * PAGE));
            for (int i = p; i < p + count; i++)
                protection[r][i] = GONE;
        }
        return;
    case 1:
        map_anew(r, p, count, how % 2 ? RW : PROT_READ, MAP_ANONYMOUS, -1);
        return;
    case 2:
        map_anew(r, p, count, RW, 0, file);
        return;
    case 3:
        move_pages(r, (int)any(PAGES), p, count);
        return;
    }
    for (int i = p; i < p + count; i++) {
        if (protection[r][i] == GONE)
            continue;
        if (what == 4)
            protect(r, i, protections[how]);
        else if (what == 5)
            advise(r, i, MADV_DONTNEED);
        else if (what == 6)
            advise(r, i, how % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        else if (what == 7 && how == 0)
            advise(r, i, MADV_WIPEONFORK);
        else if (what > 7 && protection[r][i] == RW)
            memset(page_at(r, i) + any(8) * 512, (int)any(256), 256);
    }
}

static void do_much(int times)
{
    while (times--)
        do_something();
}

/* What is in a page, whoever may read it. */
static uint64_t look(int r, int p)
{
    uint64_t found = 0, words[PAGE / sizeof(uint64_t)];
    if (!(protection[r][p] & PROT_READ))
        MUST(mprotect(page_at(r, p), PAGE, PROT_READ));
    memcpy(words, page_at(r, p), PAGE);
    if (!(protection[r][p] & PROT_READ))
        MUST(mprotect(page_at(r, p), PAGE, protection[r][p]));
    for (size_t i = 0; i < PAGE / sizeof(uint64_t); i++)
        found = subject_mix(found ^ words[i]);
    return found;
}

static void reach(int *count)
{
    __sync_fetch_and_add(count, 1);
    while (__atomic_load_n(count, __ATOMIC_SEQ_CST) < common->processes)
        subject_tick();
}

static void complain(int r, int p, const char *what)
{
    if (__sync_fetch_and_add(&common->wrong, 1) == 0)
        snprintf(common->why, sizeof common->why, "region %d, page %d (protection %d): %s", r, p, protection[r][p], what);
}

#define EACH_PAGE(r, p)                                                                                               \
    for (int r = 0; r < REGIONS; r++)                                                                                 \
        for (int p = 0; p < PAGES; p++)                                                                               \
            if (protection[r][p] != GONE)

/* All processes at once, step by step. */
static void prove(void)
{
    EACH_PAGE(r, p)
        if (look(r, p) != digest[r][p])
            complain(r, p, "the contents differ");
    reach(&common->compared);
    int mine = (int)getpid();
    EACH_PAGE(r, p)
        if (protection[r][p] == RW)
            memcpy(page_at(r, p), &mine, sizeof mine);
    reach(&common->marked);
    EACH_PAGE(r, p)
        if (protection[r][p] == RW && memcmp(page_at(r, p), &mine, sizeof mine))
            complain(r, p, "another process writes into it");
    reach(&common->proved);
}

static void remember(void)
{
    EACH_PAGE(r, p)
        digest[r][p] = look(r, p);
    __sync_fetch_and_add(&common->ready, 1);
}

static void live(int depth);

static int work(int told, void *depth)
{
    state = subject_mix(seed + (uint64_t)common->processes);
    do_much(8 + (int)any(25));
    live(*(int *)depth);
    (void)told; /* it ends with the parent's word, or with the parent */
    return 0;
}

/* Fork some, each after some more has happened, and wait for the end; the root comes back when all are ready. */
static void live(int depth)
{
    struct child children[2];
    int count = depth == 0 ? 2 : depth < DEPTH ? (int)any(3) : 0, below = depth + 1;
    for (int i = 0; i < count; i++) {
        do_much(20);
        common->processes++;
        children[i] = child_start(work, &below);
        while (__atomic_load_n(&common->ready, __ATOMIC_SEQ_CST) < common->processes - below)
            subject_tick(); /* one after the other, so that the seed decides; we and those above are ready later */
    }
    do_much(15);
    remember();
    if (depth == 0)
        subject_wait(NULL);
    else
        while (__atomic_load_n(&common->compared, __ATOMIC_SEQ_CST) == 0 && access(subject_go, F_OK) != 0)
            subject_tick();
    prove();
    for (int i = 0; i < count; i++)
        child_expect_exit(children[i], 0, "a child");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
    state = subject_mix(seed);
    common = MUST_MAP(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    file = (int)MUST(open(subject_path("pages"), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    for (int r = 0; r < REGIONS; r++) {
        region[r] = MUST_MAP(mmap(NULL, PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        for (int p = 0; p < PAGES; p++) {
            char content[PAGE];
            subject_fill(content, PAGE, (uint64_t)(r * PAGES + p));
            MUST(write(file, content, PAGE));
            protection[r][p] = RW;
            if (any(4))
                subject_fill(page_at(r, p), PAGE, seed + (uint64_t)p);
        }
    }
    do_much(30);
    common->processes = 1;
    live(0);
    EXPECT(common->wrong == 0, "seed %llu: %d pages are wrong: %s", (unsigned long long)seed, common->wrong, common->why);
    unlink(subject_path("pages"));
    subject_pass();
}
