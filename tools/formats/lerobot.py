def detects(path):
    return False
