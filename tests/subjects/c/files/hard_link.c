/* Opened by a name that was removed, while another link is left: still one file. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(open(subject_path("first"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, "linked", 6));
    MUST(link(subject_path("first"), subject_path("second")));
    MUST(unlink(subject_path("first")));
    subject_wait(NULL);
    MUST(pwrite(fd, "LINKED", 6, 0));
    int other = (int)MUST(open(subject_path("second"), O_RDONLY));
    char text[10] = "";
    MUST(read(other, text, 6));
    EXPECT(strcmp(text, "LINKED") == 0, "they are two files now: '%s'", text);
    struct stat st;
    MUST(fstat(fd, &st));
    EXPECT(st.st_nlink == 1, "%d links", (int)st.st_nlink);
    subject_pass();
}
