/* Threads blocked in moving data: splice from an empty pipe, sendfile and write to a full one, vmsplice, copy by tee. */
#include "blocked.h"
#include <sys/sendfile.h>
#include <sys/uio.h>

static int empty[2], into[2], full[2], spliced[2], teed[2], tee_into[2], file;
static char content[65536];

static long by_splice(void) { return splice(empty[0], NULL, into[1], NULL, 100, 0); }
static void wake_splice(void) { MUST(write(empty[1], "spliced", 7)); }
static long by_sendfile(void) { return sendfile(full[1], file, &(off_t){0}, 4096); }
static void wake_sendfile(void) { MUST(read(full[0], content, sizeof content)); }
static long by_vmsplice(void) { return vmsplice(spliced[1], &(struct iovec){content, 4096}, 1, 0); }
static void wake_vmsplice(void) { MUST(read(spliced[0], content, sizeof content)); }
static long by_tee(void) { return tee(teed[0], tee_into[1], 100, 0); }
static void wake_tee(void) { MUST(write(teed[1], "teed", 4)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int *all_pipes[] = {empty, into, full, spliced, teed, tee_into};
    for (int i = 0; i < 6; i++)
        MUST(pipe(all_pipes[i]));
    file = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(write(file, content, sizeof content));
    MUST(write(full[1], content, sizeof content));
    MUST(write(spliced[1], content, sizeof content));
    struct blocked all[] = {WAITS("splice", splice, 7),
                            WAITS("sendfile", sendfile, 4096),
                            WAITS("vmsplice", vmsplice, 4096),
                            WAITS("tee", tee, 4)};
    BLOCKED_THROUGH(all);
    char text[10] = "";
    EXPECT(read(into[0], text, 7) == 7 && !strcmp(text, "spliced"), "splice moved '%s'", text);
    subject_pass();
}
