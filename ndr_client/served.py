"""The names of pushed models: folders and models, their signatures, inputs and outputs."""

QUERY_TOWER = "query_tower"
ITEM_TOWER = "item_tower"
RETRIEVER = "retriever"
MODELS = (QUERY_TOWER, ITEM_TOWER, RETRIEVER)  # the parts of a version that TensorFlow runs
INDEX = "index"

TENSORS_SIGNATURE = "serving_default"
EXAMPLES_SIGNATURE = "serving_examples"
EMBEDDINGS_SIGNATURE = "serving_embeddings"

EXAMPLES = "examples"
K = "k"
EXCLUDE = "exclude"
WHERE = "where"
EMBEDDING = "embedding"
REPEATED = "repeated_items"
BONUSES = "repeated_bonuses"
ITEM_IDS = "item_ids"
SCORES = "scores"

NO_ITEM = ""  # pads a row with fewer items than the answer's width
NO_SCORE = -2.0  # below every inner product of unit vectors plus a bonus
