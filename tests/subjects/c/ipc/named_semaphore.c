/* POSIX semaphores by name: one that is there, one that was unlinked, with their values. */
#include "../subject.h"
#include <semaphore.h>
#include <sys/mman.h>

static char kept_name[64], gone_name[64];

static sem_t *make(const char *suffix, unsigned value, char *name)
{
    snprintf(name, 64, "/nbcr-subject-%d-%s", (int)getpid(), suffix);
    sem_t *made = sem_open(name, O_CREAT | O_EXCL, 0600, value);
    EXPECT(made != SEM_FAILED, "sem_open: %s", strerror(errno));
    return made;
}

/* What others find under the name: the C library would give us the one that it remembers. */
static sem_t *as_others_see(const char *name)
{
    char path[80] = "/sem.";
    int fd = shm_open(strcat(path, name + 1), O_RDWR, 0);
    EXPECT(fd >= 0, "its name is gone");
    sem_t *found = mmap(NULL, sizeof(sem_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(found != MAP_FAILED, "it cannot be mapped");
    close(fd);
    return found;
}

static void spoil(void)
{
    MUST(sem_unlink(kept_name));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sem_t *kept = make("kept", 3, kept_name), *gone = make("gone", 5, gone_name);
    MUST(sem_unlink(gone_name));
    MUST(sem_wait(kept));
    subject_wait(spoil);
    int value;
    MUST(sem_getvalue(gone, &value));
    EXPECT(value == 5, "the unlinked one's value is %d", value);
    MUST(sem_getvalue(kept, &value));
    EXPECT(value == 2, "the kept one's value is %d", value);
    MUST(sem_post(as_others_see(kept_name)));
    MUST(sem_getvalue(kept, &value));
    EXPECT(value == 3, "the name leads to another one");
    MUST(sem_unlink(kept_name));
    subject_pass();
}
