/* Deleted and replaced by another file of the same name: the descriptor shows the old one, the name the new one. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int old = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(old, "the old content", 15));
    MUST(unlink(subject_path("file")));
    int new = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(write(new, "NEW", 3));
    MUST(close(new));
    subject_wait(NULL);
    char text[20] = "";
    EXPECT(pread(old, text, 15, 0) == 15 && !strcmp(text, "the old content"), "the descriptor shows '%s'", text);
    new = (int)MUST(open(subject_path("file"), O_RDONLY));
    memset(text, 0, sizeof text);
    EXPECT(read(new, text, 15) == 3 && !strcmp(text, "NEW"), "the name shows '%s'", text);
    subject_pass();
}
