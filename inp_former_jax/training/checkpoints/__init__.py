"""What a run saves in its workdir, and reads from it again."""
