/* Protection keys: which are allocated, which mapping has which, what they allow. And execute-only memory, which uses one. */
#include "../subject.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf out;
static volatile int code;

static unsigned rights(void)
{
    unsigned low, high;
    __asm__ volatile("rdpkru" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static void set_rights(unsigned all)
{
    __asm__ volatile("wrpkru" : : "a"(all), "d"(0), "c"(0) : "memory");
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    code = info->si_code;
    siglongjmp(out, 1);
}

static bool faults(volatile char *at)
{
    volatile unsigned before = rights(); /* a handler runs with none but those of key 0 */
    if (sigsetjmp(out, 1)) {
        set_rights(before);
        return true;
    }
    (void)*at;
    return false;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int spare = pkey_alloc(0, 0);
    if (spare < 0)
        subject_skip("a processor with protection keys");
    int open_key = MUST(pkey_alloc(0, 0)), shut_key = MUST(pkey_alloc(0, PKEY_DISABLE_ACCESS));
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGSEGV, &action, NULL));
    char *pages = MUST_MAP(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    static const unsigned char seven[] = {0xb8, 7, 0, 0, 0, 0xc3}; /* mov $7,%eax; ret */
    memcpy(pages + 8192, seven, sizeof seven);
    MUST(mprotect(pages + 8192, 4096, PROT_EXEC));
    MUST(pkey_free(spare)); /* so that the numbers have a gap */
    pages[0] = 'a', pages[4096] = 'b';
    MUST(pkey_mprotect(pages, 4096, PROT_READ | PROT_WRITE, open_key));
    MUST(pkey_mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE, shut_key));
    unsigned before = rights();

    subject_wait(NULL);
    EXPECT(rights() == before, "what the keys allow was %#x and is %#x", before, rights());
    EXPECT(!faults(pages) && pages[0] == 'a', "an open page");
    EXPECT(faults(pages + 4096) && code == SEGV_PKUERR, "a key does not protect");
    EXPECT(faults(pages + 8192), "memory that may only be executed can be read");
    EXPECT(((int (*)(void))(pages + 8192))() == 7, "it cannot be executed");
    MUST(pkey_set(open_key, PKEY_DISABLE_ACCESS));
    EXPECT(faults(pages), "the other key does not protect");
    MUST(pkey_set(shut_key, 0));
    EXPECT(pages[4096] == 'b', "content under the key that protected it");
    int next = MUST(pkey_alloc(0, 0));
    EXPECT(next == spare, "key %d is given instead of %d, the free one", next, spare);
    MUST(pkey_free(open_key));
    subject_pass();
}
