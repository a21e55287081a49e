/* One deleted file, open for reading, for writing and for appending, each with an offset of its own, and mapped. */
#include "../subject.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[20000];
    subject_fill(content, sizeof content, 5);
    int writer = (int)MUST(open(subject_path("file"), O_WRONLY | O_CREAT | O_EXCL, 0600));
    MUST(write(writer, content, sizeof content));
    int reader = (int)MUST(open(subject_path("file"), O_RDONLY)), adder = (int)MUST(open(subject_path("file"), O_WRONLY | O_APPEND));
    int both = (int)MUST(open(subject_path("file"), O_RDWR));
    const char *private_view = MUST_MAP(mmap(NULL, sizeof content, PROT_READ, MAP_PRIVATE, reader, 0));
    char *shared_view = MUST_MAP(mmap(NULL, sizeof content, PROT_READ | PROT_WRITE, MAP_SHARED, both, 0));
    MUST(unlink(subject_path("file")));
    MUST(lseek(reader, 111, SEEK_SET));
    MUST(lseek(both, 222, SEEK_SET));
    subject_wait(NULL);
    EXPECT(lseek(reader, 0, SEEK_CUR) == 111 && lseek(both, 0, SEEK_CUR) == 222, "the offsets");
    EXPECT(lseek(writer, 0, SEEK_CUR) == sizeof content, "the writer's offset is %ld", (long)lseek(writer, 0, SEEK_CUR));
    EXPECT_FILLED(private_view, sizeof content, 5, "the private view");
    EXPECT_FILLED(shared_view, sizeof content, 5, "the shared view");
    MUST(write(adder, "end", 3));
    char text[4] = "";
    EXPECT(pread(both, text, 3, sizeof content) == 3 && !strcmp(text, "end"), "what was appended is not seen");
    shared_view[7] = 'z';
    EXPECT(pread(reader, text, 1, 7) == 1 && text[0] == 'z', "a write by the mapping is not seen");
    EXPECT(fcntl(adder, F_GETFL) & O_APPEND, "O_APPEND is lost");
    subject_pass();
}
