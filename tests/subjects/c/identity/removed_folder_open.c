/* A folder that was removed, as working folder and open twice: all three are the same one. */
#include "../subject.h"

static ino_t number(const char *path)
{
    struct stat found;
    MUST(stat(path, &found));
    return found.st_ino;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char numbers[2][64];
    MUST(mkdir(subject_path("folder"), 0750));
    for (int i = 0; i < 2; i++)
        snprintf(numbers[i], sizeof numbers[i], "/proc/self/fd/%d", (int)MUST(open(subject_path("folder"), O_RDONLY | O_DIRECTORY)));
    MUST(chdir(subject_path("folder")));
    MUST(rmdir(subject_path("folder")));
    subject_wait(NULL);
    EXPECT(number(numbers[0]) == number(numbers[1]), "the descriptors are of different folders");
    EXPECT(number(numbers[0]) == number("."), "the working folder is another one");
    struct stat found;
    MUST(stat(".", &found));
    EXPECT(found.st_nlink == 0 && (found.st_mode & 07777) == 0750, "%u links, mode %o", (unsigned)found.st_nlink, found.st_mode);
    EXPECT(access(subject_path("folder"), F_OK) == -1, "the folder is back");
    subject_pass();
}
