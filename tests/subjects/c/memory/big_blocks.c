/* Blocks that malloc takes straight from mmap, and the heap of a thread: what a lazy restore may and may not map. */
#include "../subject.h"
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SIZE ((size_t)9 << 20)
#define BLOCKS 4
static char *blocks[BLOCKS];

/* With a hole at every second page, but for one dense part: far more pieces than a process may have mappings. */
#define SPARSE ((size_t)384 << 20)
#define DENSE ((size_t)4 << 20)
static char *sparse, *kept;

static char sparse_byte(size_t at) { return at < DENSE || at / 4096 % 2 ? (char)(at / 4096 * 7 + 1) : 0; }

static void check_sparse(void)
{
    for (size_t at = 4096; at < SPARSE; at += 4096)
        EXPECT(sparse[at] == sparse_byte(at), "byte %zu of the sparse block is %d", at, sparse[at]);
}

/* A child that must not see a block, as it was advised. */
static void check_not_forked(void)
{
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        unsigned char present;
        _exit(mincore((void *)(((uintptr_t)kept + 4095) & ~4095ul), 4096, &present) == -1 ? 0 : 1);
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    EXPECT(status == 0, "the child has what was not to be forked (%#x)", status);
}
static sem_t turn, done;
static void spoil(void) { memset(blocks[1], 0, SIZE); }

/* A thread's own heap, filled to 3 MiB, given back (with MADV_DONTNEED) and taken again: calloc must find zeros. */
static void *second(void *nothing)
{
    enum { COUNT = 60, PIECE = 50000 };
    char *pieces[COUNT];
    for (int i = 0; i < COUNT; i++) {
        pieces[i] = malloc(PIECE);
        memset(pieces[i], 0xee, PIECE);
    }
    sem_post(&done);
    while (sem_wait(&turn) && errno == EINTR)
        ;
    for (int i = COUNT - 1; i >= 0; i--)
        free(pieces[i]);
    malloc_trim(0);
    for (int i = 0; i < COUNT; i++) {
        char *piece = calloc(1, PIECE);
        for (int k = 0; k < PIECE; k++)
            EXPECT(piece[k] == 0, "byte %d of calloc's piece %d is not zero", k, i);
    }
    return nothing;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(SIZE);
        subject_fill(blocks[i], SIZE, (uint64_t)i);
    }
    madvise((void *)(((uintptr_t)blocks[2] + 4095) & ~4095ul), SIZE - 8192, MADV_HUGEPAGE); /* as numpy does */
    kept = malloc(SIZE);
    subject_fill(kept, SIZE, 77);
    MUST(madvise((void *)(((uintptr_t)kept + 4095) & ~4095ul), SIZE - 8192, MADV_DONTFORK));
    sparse = malloc(SPARSE);
    madvise((void *)(((uintptr_t)sparse + 4095) & ~4095ul), SPARSE - 8192, MADV_NOHUGEPAGE);
    for (size_t at = 4096; at < SPARSE; at += 4096)
        if (sparse_byte(at))
            sparse[at] = sparse_byte(at);
    pthread_t thread;
    sem_init(&turn, 0, 0);
    sem_init(&done, 0, 0);
    EXPECT(pthread_create(&thread, NULL, second, NULL) == 0, "no thread");
    while (sem_wait(&done) && errno == EINTR)
        ;
    subject_wait(spoil);
    for (int i = 0; i < BLOCKS; i++)
        EXPECT_FILLED(blocks[i], SIZE, (uint64_t)i, "a block");
    EXPECT_FILLED(kept, SIZE, 77, "the block that is not forked");
    check_not_forked();
    check_sparse();
    char *grown = realloc(blocks[0], 7 * SIZE); /* beyond anything that lies in the image */
    EXPECT(grown != NULL, "realloc to %zu bytes", 7 * SIZE);
    EXPECT_FILLED(grown, SIZE, 0, "the block that grew");
    memset(grown, 1, 7 * SIZE);
    EXPECT(realloc(blocks[3], SIZE / 3) != NULL, "realloc to less");
    free(blocks[1]);
    char *fresh = calloc(1, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        EXPECT(fresh[i] == 0, "byte %zu of a fresh block is not zero", i);
    sem_post(&turn);
    EXPECT(pthread_join(thread, NULL) == 0, "no join");
    subject_pass();
}
