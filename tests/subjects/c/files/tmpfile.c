/* A file that never had a name (O_TMPFILE). */
#include "../subject.h"
#include <libgen.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char folder[PATH_MAX], now[5000], content[5000];
    snprintf(folder, sizeof folder, "%s", subject_base);
    subject_fill(content, sizeof content, 6);
    int fd = open(dirname(folder), O_RDWR | O_TMPFILE, 0600);
    if (fd < 0)
        subject_skip("a file system with O_TMPFILE");
    MUST(write(fd, content, sizeof content));
    subject_wait(NULL);
    EXPECT(lseek(fd, 0, SEEK_CUR) == sizeof content, "the offset");
    EXPECT(pread(fd, now, sizeof now, 0) == sizeof now && !memcmp(now, content, sizeof now), "the content");
    subject_pass();
}
