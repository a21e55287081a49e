/* A file that its owner may no longer open: the mode changed after opening. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, "written before", 14));
    MUST(fchmod(fd, 0400));
    int reader = (int)MUST(open(subject_path("file"), O_RDONLY));
    MUST(lseek(reader, 8, SEEK_SET));
    MUST(close(fd));
    subject_wait(NULL);
    char text[10] = "";
    EXPECT(read(reader, text, 6) == 6 && !strcmp(text, "before"), "'%s'", text);
    subject_pass();
}
