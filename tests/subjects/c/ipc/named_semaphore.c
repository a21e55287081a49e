/* POSIX semaphores by name: one that is there, one that was unlinked, with their values. */
#include "../subject.h"
#include <semaphore.h>

static sem_t *make(const char *suffix, unsigned value, char *name)
{
    snprintf(name, 64, "/nbcr-subject-%d-%s", (int)getpid(), suffix);
    sem_t *made = sem_open(name, O_CREAT | O_EXCL, 0600, value);
    EXPECT(made != SEM_FAILED, "sem_open: %s", strerror(errno));
    return made;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char kept_name[64], gone_name[64];
    sem_t *kept = make("kept", 3, kept_name), *gone = make("gone", 5, gone_name);
    MUST(sem_unlink(gone_name));
    MUST(sem_wait(kept));
    subject_wait(NULL);
    int value;
    MUST(sem_getvalue(gone, &value));
    EXPECT(value == 5, "the unlinked one's value is %d", value);
    MUST(sem_getvalue(kept, &value));
    EXPECT(value == 2, "the kept one's value is %d", value);
    sem_t *again = sem_open(kept_name, 0);
    EXPECT(again != SEM_FAILED, "its name is gone");
    MUST(sem_post(again));
    MUST(sem_getvalue(kept, &value));
    EXPECT(value == 3, "the name leads to another one");
    MUST(sem_unlink(kept_name));
    subject_pass();
}
