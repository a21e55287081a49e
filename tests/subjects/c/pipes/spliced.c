/* Pipes whose content came by splice from a file, by tee from another pipe, by vmsplice as a gift. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/uio.h>

#define SIZE 20000

static void expect_content(int fd, size_t size, uint64_t seed, const char *what)
{
    static char now[SIZE];
    size_t got = 0;
    while (got < size)
        got += (size_t)MUST(read(fd, now + got, size - got));
    EXPECT_FILLED(now, size, seed, what);
    MUST(fcntl(fd, F_SETFL, O_NONBLOCK));
    EXPECT(read(fd, now, 1) == -1 && errno == EAGAIN, "%s: there is more", what);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[SIZE];
    subject_fill(content, SIZE, 1);
    int file = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600)), from_file[2], copied[2], gift[2];
    MUST(write(file, content, SIZE));
    MUST(lseek(file, 0, SEEK_SET));
    MUST(pipe(from_file));
    MUST(pipe(copied));
    MUST(pipe(gift));
    EXPECT(splice(file, NULL, from_file[1], NULL, SIZE, 0) == SIZE, "splice");
    EXPECT(tee(from_file[0], copied[1], SIZE, 0) == SIZE, "tee");
    char *pages = MUST_MAP(mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    subject_fill(pages, 4 * 4096, 2);
    EXPECT(vmsplice(gift[1], &(struct iovec){pages, 4 * 4096}, 1, SPLICE_F_GIFT) == 4 * 4096, "vmsplice");
    subject_wait(NULL);
    EXPECT(lseek(file, 0, SEEK_CUR) == SIZE, "the file's offset");
    expect_content(from_file[0], SIZE, 1, "from a file");
    expect_content(copied[0], SIZE, 1, "from another pipe");
    expect_content(gift[0], 4 * 4096, 2, "a gift of pages");
    subject_pass();
}
