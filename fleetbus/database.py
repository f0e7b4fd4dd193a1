"""placeholder"""
def driver_url(url: str) -> str:
    """placeholder"""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)
